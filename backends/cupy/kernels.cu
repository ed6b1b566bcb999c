// Multi-tensor kernels for clipping: one launch works on all leaves of a dtype and reads each element once.
//
// A block of threads works on one `Piece`: 16 KiB to 1 MiB of one leaf. So one large leaf and a thousand small ones
// both use the whole device. The host lists the pieces in a table once, and keeps the table while the arrays stay the same.
//   partials_*  write a partial norm (scale, total) for each piece; it stands for scale * total^(1/p).
//   finish      merges the partial norms in a fixed order, without atomics, and computes the coefficient.
//   scale       multiplies; it returns at once if nothing changes.
// The host reads nothing back.
//
// The file is compiled once for each device and dtype. It includes no header, so NVRTC needs no toolkit. Macros:
//   GRADCLIP_DTYPE  16 float16, 17 bfloat16, 32 float32, 64 float64. Complex leaves are pairs of real numbers.
//   GRADCLIP_PAIRS  0: sums of float32 and narrower dtypes are in float64. 1: they are in compensated float32, for
//                   devices whose float64 runs at 1/32 or 1/64 of the rate of float32. If a sum is out of float32's
//                   range, the block sums its piece again in float64.
//   GRADCLIP_HOST   compiles the same code as C++ for the CPU, for tests. Their shim replaces the part below.

#ifndef GRADCLIP_HOST
#define INFINITE __longlong_as_double(0x7ff0000000000000LL)
__device__ float float_of_half(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
__device__ unsigned short half_of_float(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
// CuPy compiles with -ftz=true: C++ operations flush subnormal float32 numbers to zero. These PTX instructions do not.
__device__ double double_of_float(float value) {
  double wide;
  asm("cvt.f64.f32 %0, %1;" : "=d"(wide) : "f"(value));
  return wide;
}
__device__ float float_of_double(double value) {
  float narrow;
  asm("cvt.rn.f32.f64 %0, %1;" : "=f"(narrow) : "d"(value));
  return narrow;
}
__device__ float product(float a, float b) {
  float result;
  asm("mul.rn.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
__device__ unsigned bits_of_float(float value) { return __float_as_uint(value); }
__device__ float float_of_bits(unsigned bits) { return __uint_as_float(bits); }
#endif

typedef long long i64;
typedef unsigned long long u64;

// ---- elements as they are stored, and their conversion to float32 and float64 ----

#if GRADCLIP_DTYPE == 16
struct element { unsigned short bits; };
__device__ float single_of(element x) { return float_of_half(x.bits); }
__device__ element narrow(float value) { return element{half_of_float(value)}; }
#define LARGEST 65504.0
#elif GRADCLIP_DTYPE == 17
struct element { unsigned short bits; };
__device__ float single_of(element x) { return float_of_bits((unsigned)x.bits << 16); }
__device__ element narrow(float value) {
  unsigned bits = bits_of_float(value);
  if (value != value) return element{(unsigned short)((bits >> 16) | 0x40)};  // rounding could make inf of NaN
  return element{(unsigned short)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};  // to nearest, ties to even
}
#define LARGEST 3.3895313892515355e38
#elif GRADCLIP_DTYPE == 32
typedef float element;
__device__ float single_of(element x) { return x; }
__device__ element narrow(float value) { return value; }
#define LARGEST 3.4028234663852886e38
#else
typedef double element;
#define LARGEST 1.7976931348623157e308
#endif

#if GRADCLIP_DTYPE == 64
__device__ float single_of(element x) { return float_of_double(x); }
__device__ double widen(element x) { return x; }
__device__ element narrow(double value) { return value; }
#else
__device__ double widen(element x) { return double_of_float(single_of(x)); }
__device__ element narrow(double value) { return narrow(float_of_double(value)); }
#endif

#define DOUBLE (GRADCLIP_DTYPE == 64)
#define LANES (16 / (int)sizeof(element))  // elements of one 16-byte access
#define UNROLL 4                           // 16-byte accesses that a thread has in flight
#define SUMS 4                             // running sums of each thread
#define THREADS 256
#define FINISHERS 1024  // threads of the one block that merges all partial norms; with many, it needs few turns

struct alignas(16) Vector { element at[LANES]; };

struct Piece {
  u64 source, target;  // addresses: of the piece's first element; if `layout` is given, of the leaf's first element
  u64 layout;          // address of [axes, shape..., strides of source..., strides of target...] in elements; 0: no gaps
  i64 start;           // the piece's first element in C order, if `layout` is given
  int count, leaf;
};

struct Partial { double scale, total; };  // scale * total^(1/p)

__device__ bool is_finite(double x) { return x - x == 0; }

// The offset of element `i` in C order from the first element, in the source or in the target.
__device__ i64 offset_of(const i64* layout, i64 i, bool target) {
  const i64 axes = layout[0];
  const i64* shape = layout + 1;
  const i64* steps = shape + (target ? 2 : 1) * axes;
  i64 offset = 0;
  for (i64 axis = axes - 1; axis >= 0; --axis) {
    offset += i % shape[axis] * steps[axis];
    i /= shape[axis];
  }
  return offset;
}

// Elements before the first 16-byte boundary.
__device__ int head_of(u64 address, int count) {
  const int head = (int)((16 - (address & 15)) & 15) / (int)sizeof(element);
  return head < count ? head : count;
}

// ---- sums of powers ----

enum Order { LARGEST_ELEMENT, ONE, TWO, ANY };

template <int ORDER, bool PAIRS>
struct Sum {  // in float64, where squares of float32 neither overflow nor underflow
  double value = 0;
  __device__ void add(double x, double p) {
    x = fabs(x);
    value += ORDER == TWO ? x * x : ORDER == ONE ? x : x == 0 ? 0 : pow(x, p);
  }
  __device__ double result() const { return value; }
};

template <int ORDER>
struct Sum<ORDER, true> {  // in float32, with the rounding error in `lost` (Kahan)
  float value = 0, lost = 0;
  __device__ void add(float x, double) {
    const float term = (ORDER == TWO ? x * x : fabsf(x)) - lost;
    const float next = value + term;
    lost = (next - value) - term;
    value = next;
  }
  __device__ double result() const { return (double)value - (double)lost; }
};

template <>
struct Sum<LARGEST_ELEMENT, false> {  // a maximum
  double value = 0;
  __device__ void add(double x, double) {
    x = fabs(x);
    if (x > value || x != x) value = x;  // NaN stays, because no number is greater
  }
  __device__ double result() const { return value; }
};

template <bool MAXIMUM>
__device__ double together(double a, double b) {
  if (!MAXIMUM) return a + b;
  return b > a || b != b ? b : a;
}

// The sum (or maximum) over the block, returned in every thread. The order of additions is fixed.
template <bool MAXIMUM>
__device__ double over_block(double value) {
  __shared__ double of_warp[32];
  const int lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
  for (int step = 16; step; step /= 2) value = together<MAXIMUM>(value, __shfl_xor_sync(~0u, value, step));
  if (lane == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  value = lane < warps ? of_warp[lane] : 0;
  for (int step = 16; step; step /= 2) value = together<MAXIMUM>(value, __shfl_xor_sync(~0u, value, step));
  __syncthreads();  // now of_warp may be written again
  return value;
}

template <bool PAIRS, bool SCALED>
__device__ auto summand(element x, double scale) {
  if constexpr (PAIRS)
    return single_of(x);
  else
    return SCALED ? widen(x) / scale : widen(x);
}

// The sum of |x / scale|^p over a piece, returned in every thread of the block.
template <int ORDER, bool PAIRS, bool SCALED>
__device__ double sum_of(const Piece& piece, double scale, double p) {
  Sum<ORDER, PAIRS> sums[SUMS];
  const element* x = (const element*)piece.source;
  const int me = threadIdx.x, step = blockDim.x, count = piece.count;
#define ADD(i, x) sums[(i) % SUMS].add(summand<PAIRS, SCALED>(x, scale), p)
  if (piece.layout) {
    for (int i = me; i < count; i += step) ADD(0, x[offset_of((const i64*)piece.layout, piece.start + i, false)]);
  } else {
    const int head = head_of(piece.source, count), vectors = (count - head) / LANES, tail = head + vectors * LANES;
    const Vector* v = (const Vector*)(x + head);
    if (me < head) ADD(0, x[me]);
    if (tail + me < count) ADD(1, x[tail + me]);
    int i = me;
    for (; i + (UNROLL - 1) * step < vectors; i += UNROLL * step) {
      Vector read[UNROLL];
#pragma unroll
      for (int u = 0; u < UNROLL; ++u) read[u] = v[i + u * step];
#pragma unroll
      for (int u = 0; u < UNROLL; ++u)
#pragma unroll
        for (int k = 0; k < LANES; ++k) ADD(u * LANES + k, read[u].at[k]);
    }
    for (; i < vectors; i += step) {
      const Vector read = v[i];
#pragma unroll
      for (int k = 0; k < LANES; ++k) ADD(k, read.at[k]);
    }
  }
#undef ADD
  constexpr bool maximum = ORDER == LARGEST_ELEMENT;
  const double low = together<maximum>(sums[0].result(), sums[1].result());
  return over_block<maximum>(together<maximum>(low, together<maximum>(sums[2].result(), sums[3].result())));
}

// `largest`, or the nearest number that elements can be divided by: never 0, inf or NaN, with a normal reciprocal.
__device__ double safe_scale(double largest) {
  const double low = ldexp(1.0, -1022), high = ldexp(1.0, 1022);
  return largest >= low ? (largest <= high ? largest : high) : largest < low ? low : high;
}

// Whether a sum of `count` powers may have overflowed, or lost more than `share` of itself by underflow.
__device__ bool doubtful(double total, int count, double tiny, double share) {
  return !is_finite(total) || total < count * (tiny / share);
}

template <int ORDER>
__device__ Partial partial_of(const Piece& piece, double p) {
  if (ORDER == LARGEST_ELEMENT) {
    const double largest = sum_of<LARGEST_ELEMENT, false, false>(piece, 1, p), scale = safe_scale(largest);
    return Partial{scale, largest / scale};
  }
  constexpr bool pairs = GRADCLIP_PAIRS && !DOUBLE && ORDER != ANY;
  double total = sum_of<ORDER, pairs, false>(piece, 1, p);
  if (pairs && doubtful(total, piece.count, ldexp(1.0, -126), ldexp(1.0, -28)))
    total = sum_of<ORDER, false, false>(piece, 1, p);
  if ((DOUBLE || ORDER == ANY) && doubtful(total, piece.count, ldexp(1.0, -1022), ldexp(1.0, -58))) {
    const double largest = sum_of<LARGEST_ELEMENT, false, false>(piece, 1, p);
    if (largest == 0) return Partial{1, 0};
    const double scale = safe_scale(largest);
    return Partial{scale, sum_of<ORDER, false, true>(piece, scale, p)};
  }
  return Partial{1, total};
}

#define PARTIALS(NAME, ORDER)                                                                                          \
  extern "C" __global__ void __launch_bounds__(THREADS) NAME(const Piece* pieces, Partial* partials, double p) {       \
    const Partial partial = partial_of<ORDER>(pieces[blockIdx.x], p);                                                  \
    if (threadIdx.x == 0) partials[blockIdx.x] = partial;                                                              \
  }
PARTIALS(partials_inf, LARGEST_ELEMENT)
PARTIALS(partials_one, ONE)
PARTIALS(partials_two, TWO)
PARTIALS(partials_any, ANY)

// ---- merging, and the coefficient ----

__device__ double root(double total, double p) {
  return p == 2 ? sqrt(total) : p == 1 || p == INFINITE ? total : total == 0 ? 0 : pow(total, 1 / p);
}

// `total` for a scale 1 / ratio times as large. NaN and inf are kept, because 0 * inf is NaN.
__device__ double rescaled(double total, double ratio, double p) {
  if (ratio == 1 || !is_finite(total)) return total;
  return total * (p == 2 ? ratio * ratio : p == 1 || p == INFINITE ? ratio : pow(ratio, p));
}

// The merged partial norm, returned in every thread of the block. Parts that are zero do not influence the scale.
__device__ Partial merged(const Partial* parts, i64 count, double p) {
  const i64 me = threadIdx.x, step = blockDim.x;
  double scale = 0;
#pragma unroll 4
  for (i64 i = me; i < count; i += step)
    if (parts[i].total != 0) scale = together<true>(scale, parts[i].scale);
  scale = over_block<true>(scale);
  if (scale == 0) return Partial{1, 0};
  double sums[SUMS] = {0, 0, 0, 0}, largest = 0;
  for (i64 i = me, turn = 0; i < count; i += step, ++turn) {
    const double term = rescaled(parts[i].total, parts[i].total == 0 ? 1 : parts[i].scale / scale, p);
    largest = together<true>(largest, term);
    sums[turn % SUMS] += term;
  }
  if (p == INFINITE) return Partial{scale, over_block<true>(largest)};
  return Partial{scale, over_block<false>((sums[0] + sums[1]) + (sums[2] + sums[3]))};
}

struct Range { i64 begin, end; };

// Merges each range of partial norms, such as those of the pieces of a leaf; one block for each range.
extern "C" __global__ void __launch_bounds__(THREADS)
merge(const Partial* parts, const Range* ranges, Partial* results, double p) {
  const Range range = ranges[blockIdx.x];
  const Partial partial = merged(parts + range.begin, range.end - range.begin, p);
  if (threadIdx.x == 0) results[blockIdx.x] = partial;
}

struct Result {
  Partial partial;
  double norm, divisor, factor;  // a leaf becomes leaf / divisor * factor
  float narrow_norm;
  bool changed, zeroed;
};

// Numbers on the device were not checked by the host. A negative threshold or eps counts as 0 (NaN stays); a loss scale
// that is not positive counts as NaN.
__device__ double at_least_zero(double x) { return x < 0 ? 0 : x; }
__device__ double positive(double x) { return x > 0 ? x : INFINITE - INFINITE; }

// Merges all partial norms; computes the norm and the coefficient, as `coefficient` in gradclip/_coefficient.py does.
extern "C" __global__ void __launch_bounds__(FINISHERS)
finish(const Partial* parts, i64 count, double p, double max_norm, double eps, double loss, const double* on_device,
       int zero, Result* result) {
  const Partial whole = merged(parts, count, p);
  if (threadIdx.x) return;
  if (on_device) max_norm = at_least_zero(on_device[0]), eps = at_least_zero(on_device[1]), loss = positive(on_device[2]);
  const double r = root(whole.total, p);
  const double norm = whole.scale / loss * r;
  const bool below = norm + eps <= max_norm;  // false for NaN, so that NaN spreads
  const bool clipped = !(below || max_norm == INFINITE), zeroed = zero && !is_finite(whole.total);
  result->partial = whole;
  result->norm = norm;
  result->narrow_norm = float_of_double(norm);
  result->divisor = clipped ? whole.scale : 1;
  result->factor = clipped ? max_norm / (r + eps * loss / whole.scale) : 1 / loss;
  result->changed = clipped || loss != 1 || zeroed;
  result->zeroed = zeroed;
}

// ---- writing ----

// Applies f to every element. f returns whether it changed the element; in place, only changed elements are written.
template <class F>
__device__ void map_piece(const Piece& piece, F f) {
  const element* x = (const element*)piece.source;
  element* y = (element*)piece.target;
  const int me = threadIdx.x, step = blockDim.x, count = piece.count;
  const bool always = piece.source != piece.target;
  const i64* layout = (const i64*)piece.layout;
#define MAP(from, to)                           \
  {                                             \
    element value = x[from];                    \
    if (f(value) || always) y[to] = value;      \
  }
  if (layout) {
    for (i64 i = piece.start + me; i < piece.start + count; i += step)
      MAP(offset_of(layout, i, false), offset_of(layout, i, true));
    return;
  }
  if ((piece.source ^ piece.target) & 15) {  // 16-byte accesses cannot be aligned in both
    for (int i = me; i < count; i += step) MAP(i, i);
    return;
  }
  const int head = head_of(piece.source, count), vectors = (count - head) / LANES, tail = head + vectors * LANES;
  const Vector* v = (const Vector*)(x + head);
  Vector* w = (Vector*)(y + head);
  if (me < head) MAP(me, me);
  if (tail + me < count) MAP(tail + me, tail + me);
#undef MAP
  for (int i = me; i < vectors; i += UNROLL * step) {
    Vector read[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u)
      if (i + u * step < vectors) read[u] = v[i + u * step];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
      if (i + u * step >= vectors) continue;
      bool write = always;
#pragma unroll
      for (int k = 0; k < LANES; ++k) write |= f(read[u].at[k]);
      if (write) w[i + u * step] = read[u];
    }
  }
}

struct Copy {
  __device__ bool operator()(element&) const { return false; }
};

struct Zero {
  __device__ bool operator()(element& x) const { return x = narrow(0.0), true; }
};

struct Times {
  double factor;
  __device__ bool operator()(element& x) const { return x = narrow(widen(x) * factor), true; }
};

struct TimesSingle {
  float factor;
  __device__ bool operator()(element& x) const { return x = narrow(product(single_of(x), factor)), true; }
};

struct Divide {  // for a coefficient that one number cannot represent
  double divisor, factor;
  __device__ bool operator()(element& x) const { return x = narrow(widen(x) / divisor * factor), true; }
};

struct Clamp {
  double low, high;
  __device__ bool operator()(element& x) const {
    const double value = widen(x);
    if (value < low) return x = narrow(low), true;
    if (value > high) return x = narrow(high), true;
    return false;  // NaN is neither below nor above
  }
};

// Multiplies by the leaf's own coefficient, or by one for all leaves. The last pieces come first, because they were
// read last and some are still in the cache.
extern "C" __global__ void __launch_bounds__(THREADS)
scale(const Piece* pieces, const double* divisors, const double* factors, const bool* changed, const bool* zeroed,
      int each) {
  const Piece piece = pieces[gridDim.x - 1 - blockIdx.x];
  const int which = each ? piece.leaf : 0;
  if (!changed[which]) {
    if (piece.source != piece.target) map_piece(piece, Copy{});
    return;
  }
  if (zeroed && zeroed[which]) return map_piece(piece, Zero{});
  const double divisor = divisors[which], factor = factors[which], both = factor / divisor;
  const bool in_single = GRADCLIP_DTYPE < 32 || (GRADCLIP_DTYPE == 32 && GRADCLIP_PAIRS);
  const int reach = in_single ? 126 : 1022;
  if (!(both >= ldexp(1.0, -reach) && both <= ldexp(1.0, reach))) return map_piece(piece, Divide{divisor, factor});
  if (in_single) return map_piece(piece, TimesSingle{float_of_double(both)});
  map_piece(piece, Times{both});
}

// A bound rounded to the leaf's dtype. A finite bound beyond its range becomes its largest finite number.
__device__ double bound_of(double bound) {
  if (is_finite(bound)) bound = bound > LARGEST ? LARGEST : bound < -LARGEST ? -LARGEST : bound;
  return widen(narrow(bound));
}

extern "C" __global__ void __launch_bounds__(THREADS)
clamp(const Piece* pieces, double low, double high, const double* on_device) {
  if (on_device) low = on_device[0], high = on_device[1];
  map_piece(pieces[blockIdx.x], Clamp{bound_of(low), bound_of(high)});
}
