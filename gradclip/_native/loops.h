/* The loops over one block of elements. kernels.c includes this file once for each level of SIMD; FN names the level.
 *
 * Sums are taken in float64, whose range holds the squares of all narrower numbers, in GROUPS running sums of four, so
 * that no compiler needs leave to reorder additions. Eight squares of float16 or bfloat16 are added up in float32
 * before: to convert each of them takes longer than to read it. At most five roundings to 24 bits follow one another,
 * so that the sum is right to 3e-7; of gradients it is right to about 1e-8.
 *
 * Products are computed in float32, rounded once, where it holds the number that elements are multiplied by; else in
 * float64, and those of float64 always. Addresses may be unaligned.
 *
 * A block is read in STREAMS places at once. A core waits for memory at each of them; together they give it 1.2 to 1.4
 * times as many bytes a second as one.
 *
 * The functions that take a dtype, an order or a work are inlined with constants: one loop for each is compiled.
 */

/* ---- conversions, for which a level may have instructions of its own ----------------------------------- */

INLINE double4 FN(widen)(float4 v)
{
#if defined(HAS_AVX2)
    return (double4)_mm256_cvtps_pd((__m128)v);
#else
    return __builtin_convertvector(v, double4);
#endif
}

INLINE float4 FN(narrow)(double4 v)
{
#if defined(HAS_AVX2)
    return (float4)_mm256_cvtpd_ps((__m256d)v);
#else
    return __builtin_convertvector(v, float4);
#endif
}

INLINE float8 FN(load_f16)(const unsigned char *x)
{
#if defined(HAS_AVX2)
    return (float8)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x));
#else
    float8 v;
#if defined(__aarch64__)
    const float32x4_t halves[2] = {vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(x))),
                                   vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(x + 8)))};
    memcpy(&v, halves, sizeof v);
#else
    uint16_t bits[8];
    memcpy(bits, x, sizeof bits);
    for (int k = 0; k < 8; k++) v[k] = float_of_f16(bits[k]);
#endif
    return v;
#endif
}

INLINE void FN(store_f16)(unsigned char *x, float8 v)
{
#if defined(HAS_AVX2)
    _mm_storeu_si128((__m128i *)x, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__aarch64__)
    float32x4_t halves[2];
    memcpy(halves, &v, sizeof v);
    vst1_u8(x, vreinterpret_u8_f16(vcvt_f16_f32(halves[0])));
    vst1_u8(x + 8, vreinterpret_u8_f16(vcvt_f16_f32(halves[1])));
#else
    uint16_t bits[8];
    for (int k = 0; k < 8; k++) bits[k] = f16_of_float(v[k]);
    memcpy(x, bits, sizeof bits);
#endif
}

/* Return the bits of numbers, whose upper halves are those of bfloat16: to nearest, ties to even.
 *
 * NaN stays NaN if its lower half is zero, so that the addition does not reach its upper half. It is, because NaN comes
 * from a bfloat16, or is the processor's own (see scale). */
INLINE uint8 FN(round_to_bf16)(float8 v)
{
    const uint8 bits = (uint8)v;
    return bits + 0x7fff + ((bits >> 16) & 1);
}

/* ---- sixteen elements of a dtype, as float32 or float64, and back -------------------------------------- */

/* Which number of v an element is, is the same in loading and storing; it is not always the element's place. */
#undef HAS_FMA
#if defined(HAS_AVX2) || defined(__aarch64__)
#define HAS_FMA 1
#else
#define HAS_FMA 0
#endif
#ifndef SIXTEEN
#define SIXTEEN 16
struct floats { float8 v[2]; };
struct doubles { double4 v[4]; };
#endif

/* float32, float16 or bfloat16. Bfloat16 is the upper half of float32: of two elements, one is shifted there. */
INLINE struct floats FN(load_floats)(enum dtype dtype, const unsigned char *x)
{
    struct floats f;
    if (dtype == F32) {
        memcpy(&f.v[0], x, 32);
        memcpy(&f.v[1], x + 32, 32);
    } else if (dtype == F16) {
        f.v[0] = FN(load_f16)(x);
        f.v[1] = FN(load_f16)(x + 16);
    } else {
        uint8 pairs;
        memcpy(&pairs, x, sizeof pairs);
        f.v[0] = (float8)(pairs << 16);
        f.v[1] = (float8)(pairs & 0xffff0000);
    }
    return f;
}

INLINE void FN(store_floats)(enum dtype dtype, unsigned char *x, struct floats f)
{
    if (dtype == F32) {
        memcpy(x, &f.v[0], 32);
        memcpy(x + 32, &f.v[1], 32);
    } else if (dtype == F16) {
        FN(store_f16)(x, f.v[0]);
        FN(store_f16)(x + 16, f.v[1]);
    } else {
        const uint8 pairs = FN(round_to_bf16)(f.v[0]) >> 16 | (FN(round_to_bf16)(f.v[1]) & 0xffff0000);
        memcpy(x, &pairs, sizeof pairs);
    }
}

INLINE double4 FN(widen_half)(float8 v, int which)
{
    float4 half;
    memcpy(&half, (const char *)&v + which * sizeof half, sizeof half);
    return FN(widen)(half);
}

INLINE struct doubles FN(load_doubles)(enum dtype dtype, const unsigned char *x)
{
    struct doubles d;
    if (dtype == F64) {
        UNROLL for (int k = 0; k < 4; k++) memcpy(&d.v[k], x + 32 * k, 32);
    } else if (dtype == F32) {
        UNROLL for (int k = 0; k < 4; k++) {
            float4 part;
            memcpy(&part, x + 16 * k, sizeof part);
            d.v[k] = FN(widen)(part);
        }
    } else {
        const struct floats f = FN(load_floats)(dtype, x);
        UNROLL for (int k = 0; k < 4; k++) d.v[k] = FN(widen_half)(f.v[k / 2], k % 2);
    }
    return d;
}

INLINE void FN(store_doubles)(enum dtype dtype, unsigned char *x, struct doubles d)
{
    if (dtype == F64) {
        UNROLL for (int k = 0; k < 4; k++) memcpy(x + 32 * k, &d.v[k], 32);
    } else if (dtype == F32) {
        UNROLL for (int k = 0; k < 4; k++) {
            const float4 part = FN(narrow)(d.v[k]);
            memcpy(x + 16 * k, &part, sizeof part);
        }
    } else {
        struct floats f;
        float4 parts[4];
        UNROLL for (int k = 0; k < 4; k++) parts[k] = FN(narrow)(d.v[k]);
        memcpy(&f, parts, sizeof f);
        FN(store_floats)(dtype, x, f);
    }
}

/* ---- sums, and the largest element --------------------------------------------------------------------- */

INLINE double4 FN(absolute)(double4 v) { return (double4)((long4)v & INT64_MAX); }

INLINE double4 FN(select)(long4 which, double4 yes, double4 no)
{
    return (double4)((which & (long4)yes) | (~which & (long4)no));
}

INLINE double4 FN(combine)(int order, double4 a, double4 b)
{
    return order ? a + b : FN(select)((b > a) | (b != b), b, a); /* NaN stays: no number is greater */
}

/* Take sixteen elements into four running sums. */
INLINE void FN(take)(enum dtype dtype, int order, const unsigned char *x, double multiplier, double4 *sums)
{
    const struct doubles d = FN(load_doubles)(dtype, x);
    UNROLL for (int k = 0; k < 4; k++) {
        const double4 v = d.v[k] * multiplier;
        sums[k] = order == 2 ? sums[k] + v * v : FN(combine)(order, sums[k], FN(absolute)(v));
    }
}

/* Take the squares of sixty-four elements into two running sums: eight of them are added up in float32 first. */
INLINE void FN(take_in_float32)(enum dtype dtype, const unsigned char *x, double4 *sums)
{
    float8 a = {0}, b = {0};
    UNROLL for (int k = 0; k < 4; k++) {
        const struct floats f = FN(load_floats)(dtype, x + k * SIXTEEN * width_of(dtype));
        a += f.v[0] * f.v[0];
        b += f.v[1] * f.v[1];
    }
    a += b;
    sums[0] += FN(widen_half)(a, 0);
    sums[1] += FN(widen_half)(a, 1);
}

/* Add up the running sums, in a tree. */
INLINE double4 FN(gather)(int order, const double4 *s)
{
    double4 pairs[GROUPS / 2];
    for (int k = 0; k < GROUPS / 2; k++) pairs[k] = FN(combine)(order, s[k], s[k + GROUPS / 2]);
    const double4 even = GROUPS == 4 ? pairs[0] : FN(combine)(order, pairs[0], pairs[2 % (GROUPS / 2)]);
    const double4 odd = GROUPS == 4 ? pairs[1] : FN(combine)(order, pairs[1], pairs[3 % (GROUPS / 2)]);
    return FN(combine)(order, even, odd);
}

/* Return the sums of one run in each of the streams, which begin ``apart`` bytes from each other. */
INLINE double4 FN(sum_run)(enum dtype dtype, int order, const unsigned char *x, size_t apart, double multiplier)
{
    double4 sums[GROUPS] = {{0}};
    for (size_t j = 0; j < RUN; j += SIXTEEN)
        UNROLL for (int s = 0; s < STREAMS; s++)
            FN(take)(dtype, order, x + s * apart + j * width_of(dtype), multiplier, &sums[4 * s % GROUPS]);
    return FN(gather)(order, sums);
}

/* Return the same for squares of float16 or bfloat16, of which eight are added up in float32 first. */
INLINE double4 FN(sum_run_in_float32)(enum dtype dtype, const unsigned char *x, size_t apart)
{
    double4 sums[GROUPS] = {{0}};
    for (size_t j = 0; j < RUN; j += 4 * SIXTEEN)
        UNROLL for (int s = 0; s < STREAMS; s++)
            FN(take_in_float32)(dtype, x + s * apart + j * width_of(dtype), &sums[2 * s % GROUPS]);
    return FN(gather)(2, sums);
}

/* Whether no square has overflowed in float32, and what underflow lost is too small to matter: a part of 2^-35, also
 * where the processor flushes subnormal numbers to zero. */
INLINE int FN(is_in_range)(double4 sums)
{
    const double sum = sums[0] + sums[1] + sums[2] + sums[3];
    return sum >= 0x1p-80 && sum < INFINITY;
}

/* Return the sum of |x * multiplier|^order of a block, or the largest |x * multiplier| for an order of 0. */
INLINE double FN(reduce)(enum dtype dtype, int order, const unsigned char *x, size_t n, double multiplier)
{
    const int in_float32 = order == 2 && (dtype == F16 || dtype == BF16) && multiplier == 1;
    const size_t width = width_of(dtype), stream = n / STREAMS / RUN * RUN, apart = stream * width;
    double4 total = {0};
    for (size_t i = 0; i < stream; i += RUN) {
        const unsigned char *run = x + i * width;
        double4 sums = {0};
        if (in_float32) sums = FN(sum_run_in_float32)(dtype, run, apart);
        if (!in_float32 || !FN(is_in_range)(sums)) sums = FN(sum_run)(dtype, order, run, apart, multiplier);
        total = FN(combine)(order, total, sums);
    }
    size_t i = STREAMS * stream;
    double4 sums[GROUPS] = {{0}};
    for (; i + 2 * SIXTEEN <= n; i += 2 * SIXTEEN) {
        FN(take)(dtype, order, x + i * width, multiplier, sums);
        FN(take)(dtype, order, x + (i + SIXTEEN) * width, multiplier, &sums[4 % GROUPS]);
    }
    if (i + SIXTEEN <= n) {
        FN(take)(dtype, order, x + i * width, multiplier, sums);
        i += SIXTEEN;
    }
    if (i < n) {
        unsigned char last[SIXTEEN * 8] = {0};
        memcpy(last, x + i * width, (n - i) * width);
        FN(take)(dtype, order, last, multiplier, sums);
    }
    total = FN(combine)(order, total, FN(gather)(order, sums));
    double result = 0;
    for (int k = 0; k < 4; k++)
        result = order ? result + total[k] : total[k] > result || total[k] != total[k] ? total[k] : result;
    return result;
}

/* ---- products, and bounds ------------------------------------------------------------------------------ */

/* Return the nearest number within bounds; NaN is in no order, and stays. */
INLINE double4 FN(bounded_doubles)(double4 v, double low, double high)
{
    const double4 l = {low, low, low, low}, h = {high, high, high, high};
    return FN(select)(v < l, l, FN(select)(v > h, h, v));
}

INLINE float8 FN(bounded_floats)(float8 v, float low, float high)
{
    const float8 l = {low, low, low, low, low, low, low, low}, h = {high, high, high, high, high, high, high, high};
    const uint8 under = (uint8)(v < l), over = (uint8)(v > h);
    return (float8)((under & (uint8)l) | (~under & ((over & (uint8)h) | (~over & (uint8)v))));
}

/* Return v * number + rest, rounded once. Where there is no such instruction (see HAS_FMA), nobody calls it. */
INLINE float8 FN(fused)(float8 v, float number, float8 rest)
{
#if defined(HAS_AVX2)
    return (float8)_mm256_fmadd_ps((__m256)v, _mm256_set1_ps(number), (__m256)rest);
#elif defined(__aarch64__)
    float32x4_t halves[2], rests[2];
    memcpy(halves, &v, sizeof v);
    memcpy(rests, &rest, sizeof rest);
    for (int k = 0; k < 2; k++) rests[k] = vfmaq_n_f32(rests[k], halves[k], number);
    memcpy(&rest, rests, sizeof rest);
    return rest;
#else
    return v * number + rest;
#endif
}

/* Write what becomes of sixteen elements. Source and target may be the same. */
INLINE void FN(put)(enum dtype dtype, enum work work, int in_float32, const unsigned char *x, unsigned char *out,
                    double one, double other)
{
    if (in_float32) {
        struct floats f = FN(load_floats)(dtype, x);
        UNROLL for (int k = 0; k < 2; k++)
            f.v[k] = work == CLAMP ? FN(bounded_floats)(f.v[k], (float)one, (float)other)
                     : other == 0  ? f.v[k] * (float)one
                                   : FN(fused)(f.v[k], (float)one, f.v[k] * (float)other);
        FN(store_floats)(dtype, out, f);
    } else {
        struct doubles d = FN(load_doubles)(dtype, x);
        UNROLL for (int k = 0; k < 4; k++)
            d.v[k] = work == SCALE ? d.v[k] * one * other : FN(bounded_doubles)(d.v[k], one, other);
        FN(store_doubles)(dtype, out, d);
    }
}

/* Write what becomes of fewer than SIXTEEN elements. */
INLINE void FN(put_few)(enum dtype dtype, enum work work, int in_float32, const unsigned char *x, unsigned char *out,
                        size_t n, double one, double other)
{
    unsigned char few[SIXTEEN * 8] = {0};
    memcpy(few, x, n * width_of(dtype));
    FN(put)(dtype, work, in_float32, few, few, one, other);
    memcpy(out, few, n * width_of(dtype));
}

INLINE void FN(replace)(enum dtype dtype, enum work work, int in_float32, const unsigned char *x, unsigned char *out,
                        size_t n, double one, double other)
{
    const size_t width = width_of(dtype);
    size_t stream = 0;
    if (n >= STREAMS * RUN) { /* a store to two cache lines takes twice the time: NumPy's arrays begin anywhere */
        const size_t before = (-(uintptr_t)out & (sizeof(float8) - 1)) / width;
        FN(put_few)(dtype, work, in_float32, x, out, before, one, other);
        x += before * width, out += before * width, n -= before;
        stream = n / STREAMS / SIXTEEN * SIXTEEN;
    }
    for (size_t j = 0; j < stream; j += SIXTEEN)
        UNROLL for (int s = 0; s < STREAMS; s++) {
            const size_t at = (s * stream + j) * width;
            FN(put)(dtype, work, in_float32, x + at, out + at, one, other);
        }
    size_t j = STREAMS * stream;
    for (; j + SIXTEEN <= n; j += SIXTEEN)
        FN(put)(dtype, work, in_float32, x + j * width, out + j * width, one, other);
    if (j < n) FN(put_few)(dtype, work, in_float32, x + j * width, out + j * width, n - j, one, other);
}

/* Write the products with two numbers: in float32 if the second is 1 and float32 holds the first to its full
 * precision. Float16 and bfloat16 are multiplied by the rounded number, float32 by two parts of it: a truncated number,
 * and what was cut off. */
INLINE void FN(scale)(enum dtype dtype, const unsigned char *x, unsigned char *out, size_t n, double one, double other)
{
    if (one != one || other != other) one = (double)NAN, other = 1; /* the lower half of this NaN is zero */
    const double high = truncated_to_float(one), low = dtype == F32 ? (float)(one - high) : 0;
    if (dtype == F64 || other != 1 || !is_normal_float(one) || (low != 0 && !HAS_FMA))
        FN(replace)(dtype, SCALE, 0, x, out, n, one, other);
    else if (low == 0)
        FN(replace)(dtype, SCALE, 1, x, out, n, dtype == F32 ? high : one, 0.0);
    else
        FN(replace)(dtype, SCALE, 1, x, out, n, high, low);
}

/* Write the nearest numbers within two bounds. Float32 compares the narrower dtypes as float64 would. */
INLINE void FN(clamp)(enum dtype dtype, const unsigned char *x, unsigned char *out, size_t n, double one, double other)
{
    FN(replace)(dtype, CLAMP, dtype != F64, x, out, n, one, other);
}

/* ---- the loops of each dtype --------------------------------------------------------------------------- */

#define REDUCTION(NAME, DTYPE, ORDER)                                                  \
    static double FN(NAME##_##DTYPE)(const unsigned char *x, size_t n, double multiplier) \
    {                                                                                  \
        if (multiplier == 1) return FN(reduce)(DTYPE, ORDER, x, n, 1.0); /* no product */ \
        return FN(reduce)(DTYPE, ORDER, x, n, multiplier); \
    }

#define REPLACEMENT(NAME, DTYPE, OF)                                                   \
    static void FN(NAME##_##DTYPE)(const unsigned char *x, unsigned char *out, size_t n, double one, double other) \
    {                                                                                  \
        FN(OF)(DTYPE, x, out, n, one, other);                                          \
    }

#define LOOPS(DTYPE)                                          \
    REDUCTION(squares, DTYPE, 2)                              \
    REDUCTION(magnitudes, DTYPE, 1)                           \
    REDUCTION(largest, DTYPE, 0)                              \
    REPLACEMENT(scale, DTYPE, scale)                          \
    REPLACEMENT(clamp, DTYPE, clamp)

LOOPS(F64)
LOOPS(F32)
LOOPS(F16)
LOOPS(BF16)

#define OF(DTYPE) \
    {{FN(largest_##DTYPE), FN(magnitudes_##DTYPE), FN(squares_##DTYPE)}, FN(scale_##DTYPE), FN(clamp_##DTYPE)}
static const struct loops FN(table)[] = {OF(F64), OF(F32), OF(F16), OF(BF16)};

#undef REDUCTION
#undef REPLACEMENT
#undef LOOPS
#undef OF
