/* The loops over one run of elements. kernels.c includes this file once for each level of SIMD, with FN naming the level.
 *
 * Elements are widened to float64 four at a time, in GROUPS running sums, so that the sum of squares of narrower numbers
 * can neither overflow nor underflow, and so that no compiler needs leave to reorder additions. Addresses may be unaligned.
 */

/* The four conversions that a level may have instructions of its own for. */

static inline double4 FN(widen)(float4 v)
{
#if defined(HAS_AVX2)
    return (double4)_mm256_cvtps_pd((__m128)v);
#else
    return __builtin_convertvector(v, double4);
#endif
}

static inline float4 FN(narrow)(double4 v)
{
#if defined(HAS_AVX2)
    return (float4)_mm256_cvtpd_ps((__m256d)v);
#else
    return __builtin_convertvector(v, float4);
#endif
}

static inline float4 FN(floats_of_f16)(const unsigned char *x)
{
#if defined(HAS_AVX2)
    return (float4)_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)x));
#elif defined(__aarch64__)
    return (float4)vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(x)));
#else
    uint16_t bits[4];
    float wide[4];
    float4 v;
    memcpy(bits, x, sizeof bits);
    for (int k = 0; k < 4; k++) wide[k] = float_of_f16(bits[k]);
    memcpy(&v, wide, sizeof v);
    return v;
#endif
}

static inline void FN(store_floats_as_f16)(unsigned char *x, float4 v)
{
#if defined(HAS_AVX2)
    _mm_storel_epi64((__m128i *)x, _mm_cvtps_ph((__m128)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__aarch64__)
    vst1_u8(x, vreinterpret_u8_f16(vcvt_f16_f32((float32x4_t)v)));
#else
    uint16_t bits[4];
    float wide[4];
    memcpy(wide, &v, sizeof v);
    for (int k = 0; k < 4; k++) bits[k] = f16_of_float(wide[k]);
    memcpy(x, bits, sizeof bits);
#endif
}

static inline uint4 FN(load_uint16)(const unsigned char *x)
{
#if defined(HAS_AVX2)
    return (uint4)_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)x));
#else
    ushort4 v;
    memcpy(&v, x, sizeof v);
    return __builtin_convertvector(v, uint4);
#endif
}

static inline void FN(store_uint16)(unsigned char *x, uint4 v)
{
#if defined(HAS_AVX2)
    _mm_storel_epi64((__m128i *)x, _mm_packus_epi32((__m128i)v, (__m128i)v));
#else
    const ushort4 out = __builtin_convertvector(v, ushort4);
    memcpy(x, &out, sizeof out);
#endif
}

/* Four elements of each dtype, read as float64 and written back. */

static inline double4 FN(load_f64)(const unsigned char *x)
{
    double4 v;
    memcpy(&v, x, sizeof v);
    return v;
}

static inline double4 FN(load_f32)(const unsigned char *x)
{
    float4 v;
    memcpy(&v, x, sizeof v);
    return FN(widen)(v);
}

static inline double4 FN(load_f16)(const unsigned char *x) { return FN(widen)(FN(floats_of_f16)(x)); }

static inline double4 FN(load_bf16)(const unsigned char *x) { return FN(widen)((float4)(FN(load_uint16)(x) << 16)); }

static inline void FN(store_f64)(unsigned char *x, double4 v) { memcpy(x, &v, sizeof v); }

static inline void FN(store_f32)(unsigned char *x, double4 v)
{
    const float4 narrow = FN(narrow)(v);
    memcpy(x, &narrow, sizeof narrow);
}

static inline void FN(store_f16)(unsigned char *x, double4 v) { FN(store_floats_as_f16)(x, FN(narrow)(v)); }

static inline void FN(store_bf16)(unsigned char *x, double4 v)
{
    const float4 narrow = FN(narrow)(v);
    const uint4 bits = (uint4)narrow, is_nan = (uint4)(narrow != narrow);
    const uint4 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16; /* to nearest, ties to even */
    FN(store_uint16)(x, (is_nan & 0x7fc0) | (~is_nan & rounded));
}

static inline double4 FN(absolute)(double4 v) { return (double4)((long4)v & INT64_MAX); }

static inline double4 FN(select)(long4 which, double4 yes, double4 no)
{
    return (double4)((which & (long4)yes) | (~which & (long4)no));
}

/* The last elements of a run, fewer than four, in a vector whose rest is zero. */
#define LAST(TYPE, WIDTH)                                        \
    unsigned char last[4 * WIDTH] = {0};                         \
    memcpy(last, x + i * WIDTH, (n - i) * WIDTH);                \
    const double4 v = FN(load_##TYPE)(last) * unit;

/* s[k] takes in four elements; what it holds in the end is added up in a tree. */
#define REDUCTION(NAME, TYPE, WIDTH, TAKE)                                            \
    static double FN(NAME##_##TYPE)(const unsigned char *x, size_t n, double unit)    \
    {                                                                                 \
        double4 s[GROUPS] = {{0}};                                                    \
        size_t i = 0;                                                                 \
        for (; i + 4 * GROUPS <= n; i += 4 * GROUPS)                                  \
            for (int k = 0; k < GROUPS; k++) {                                        \
                const double4 v = FN(load_##TYPE)(x + (i + 4 * k) * WIDTH) * unit;    \
                TAKE;                                                                 \
            }                                                                         \
        for (int k = 0; i < n; i += 4, k++)                                           \
            if (i + 4 <= n) {                                                         \
                const double4 v = FN(load_##TYPE)(x + i * WIDTH) * unit;              \
                TAKE;                                                                 \
            } else {                                                                  \
                LAST(TYPE, WIDTH)                                                     \
                TAKE;                                                                 \
                break;                                                                \
            }                                                                         \
        for (int m = GROUPS / 2; m; m /= 2)                                           \
            for (int k = 0; k < m; k++) s[k] += s[k + m];                             \
        return (s[0][0] + s[0][2]) + (s[0][1] + s[0][3]);                             \
    }

/* The largest absolute value; NaN if there is one. */
#define LARGEST(TYPE, WIDTH)                                                          \
    static double FN(largest_##TYPE)(const unsigned char *x, size_t n, double unit)   \
    {                                                                                 \
        double4 s = {0}, spoilt = {0};                                                \
        size_t i = 0;                                                                 \
        for (; i + 4 <= n; i += 4) {                                                  \
            const double4 v = FN(absolute)(FN(load_##TYPE)(x + i * WIDTH) * unit);    \
            s = FN(select)(v > s, v, s);                                                       \
            spoilt = FN(select)(v != v, v, spoilt);                                            \
        }                                                                             \
        if (i < n) {                                                                  \
            LAST(TYPE, WIDTH)                                                         \
            const double4 a = FN(absolute)(v);                                        \
            s = FN(select)(a > s, a, s);                                                       \
            spoilt = FN(select)(a != a, a, spoilt);                                            \
        }                                                                             \
        double found[4], bad[4], most = 0;                                            \
        memcpy(found, &s, sizeof found);                                              \
        memcpy(bad, &spoilt, sizeof bad);                                             \
        for (int k = 0; k < 4; k++) {                                                 \
            if (bad[k] != bad[k]) return bad[k];                                      \
            most = found[k] > most ? found[k] : most;                                 \
        }                                                                             \
        return most;                                                                  \
    }

/* For each element a value of it, computed in float64 and rounded at the end. Source and target may be the same. */
#define REPLACEMENT(NAME, TYPE, WIDTH, VALUE)                                                                      \
    static void FN(NAME##_##TYPE)(const unsigned char *x, unsigned char *out, size_t n, double one, double other)  \
    {                                                                                                              \
        size_t i = 0;                                                                                              \
        const double4 first = {one, one, one, one}, second = {other, other, other, other};                         \
        for (; i + 4 <= n; i += 4) {                                                                               \
            const double4 v = FN(load_##TYPE)(x + i * WIDTH);                                                      \
            FN(store_##TYPE)(out + i * WIDTH, VALUE);                                                              \
        }                                                                                                          \
        if (i < n) {                                                                                               \
            unsigned char last[4 * WIDTH] = {0};                                                                   \
            memcpy(last, x + i * WIDTH, (n - i) * WIDTH);                                                          \
            const double4 v = FN(load_##TYPE)(last);                                                               \
            FN(store_##TYPE)(last, VALUE);                                                                         \
            memcpy(out + i * WIDTH, last, (n - i) * WIDTH);                                                        \
        }                                                                                                          \
    }

#define LOOPS(TYPE, WIDTH)                                                        \
    REDUCTION(squares, TYPE, WIDTH, s[k] += v * v)                                \
    REDUCTION(magnitudes, TYPE, WIDTH, s[k] += FN(absolute)(v))                   \
    LARGEST(TYPE, WIDTH)                                                          \
    REPLACEMENT(scale, TYPE, WIDTH, v * first * second)                                \
    REPLACEMENT(clamp, TYPE, WIDTH, FN(select)(v < first, first, FN(select)(v > second, second, v)))

LOOPS(f64, 8)
LOOPS(f32, 4)
LOOPS(f16, 2)
LOOPS(bf16, 2)

static const struct loops FN(table)[DTYPES] = {
    {8, FN(squares_f64), FN(magnitudes_f64), FN(largest_f64), FN(scale_f64), FN(clamp_f64)},
    {4, FN(squares_f32), FN(magnitudes_f32), FN(largest_f32), FN(scale_f32), FN(clamp_f32)},
    {2, FN(squares_f16), FN(magnitudes_f16), FN(largest_f16), FN(scale_f16), FN(clamp_f16)},
    {2, FN(squares_bf16), FN(magnitudes_bf16), FN(largest_bf16), FN(scale_bf16), FN(clamp_bf16)},
};

#undef LAST
#undef REDUCTION
#undef LARGEST
#undef REPLACEMENT
#undef LOOPS
