/* Sums over, and multiplication of, many arrays in the host's memory, in the dtypes of gradients.
 *
 * No Python and no framework here: arrays come as addresses and counts of elements, all of one dtype. Nothing is kept
 * between calls, so that any number of threads may call at once, and a process may fork after any call.
 *
 * Each array is cut into blocks of BLOCK elements. The sums of the blocks are added in their order, whichever thread
 * summed them: the same bits with any number of threads.
 */

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define API __attribute__((visibility("default")))
#define DTYPES 4                         /* float64, float32, float16, bfloat16 */
#define BLOCK ((size_t)1 << 15)          /* elements that one thread takes at a time */
#define RUN ((size_t)1 << 10)            /* elements whose squares are added without a correction: 32 to a running sum */
#define MAX_THREADS 64
#define ALONE_BELOW_NBYTES ((size_t)1 << 21) /* so few bytes are read sooner than another thread starts */

typedef double double4 __attribute__((vector_size(32)));
typedef float float4 __attribute__((vector_size(16)));
typedef int64_t long4 __attribute__((vector_size(32)));
typedef uint32_t uint4 __attribute__((vector_size(16)));
typedef uint16_t ushort4 __attribute__((vector_size(8)));

typedef double (*reduction)(const unsigned char *x, size_t n, double unit);
typedef void (*replacement)(unsigned char *x, size_t n, double one, double other);

/* What can be done with elements of one dtype, at one level of SIMD. */
struct loops {
    size_t width;
    reduction squares, magnitudes, largest;
    replacement scale, clamp;
};

static float float_of_f16(uint16_t bits)
{
    const uint32_t sign = (uint32_t)(bits & 0x8000) << 16, rest = bits & 0x7fff;
    uint32_t out;
    float wide;
    if (rest >= 0x7c00) {
        out = sign | 0x7f800000 | (rest & 0x3ff) << 13;
    } else if (rest >= 0x400) {
        out = sign | ((rest << 13) + 0x38000000);
    } else {
        wide = (float)rest * 0x1p-24f; /* zero and subnormal numbers */
        memcpy(&out, &wide, sizeof out);
        out |= sign;
    }
    memcpy(&wide, &out, sizeof wide);
    return wide;
}

__attribute__((unused)) static uint16_t f16_of_float(float wide)
{
    uint32_t bits;
    memcpy(&bits, &wide, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return sign | 0x7e00;
    if (bits >= 0x477ff000) return sign | 0x7c00; /* 65520 and above */
    if (bits < 0x38800000) {                      /* a subnormal number, or zero: this sum rounds to multiples of 2^-24 */
        float magnitude;
        memcpy(&magnitude, &bits, sizeof magnitude);
        const float shifted = magnitude + 0.5f;
        memcpy(&bits, &shifted, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000));
    }
    return (uint16_t)(sign | ((bits - 0x38000000 + 0xfff + (bits >> 13 & 1)) >> 13)); /* to nearest, ties to even */
}

#define GROUPS 4
#define FN(name) base_##name
#include "loops.h"
#undef GROUPS
#undef FN

#if defined(__x86_64__) && defined(__GNUC__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,f16c,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,f16c,fma")
#endif
#define GROUPS 8
#define FN(name) avx2_##name
#define HAS_AVX2
#include "loops.h"
#undef GROUPS
#undef FN
#undef HAS_AVX2
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

/* Return the fastest loops that this processor has, or the plain ones. */
static const struct loops *loops_for(int dtype, int level)
{
#if defined(__x86_64__) && defined(__GNUC__)
    if (level && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("fma"))
        return &avx2_table[dtype];
#endif
    (void)level;
    return &base_table[dtype];
}

/* ---- many arrays: a job is cut into blocks, the blocks are shared out ---------------------------------------------- */

struct job {
    const struct loops *loops;
    const uint64_t *addresses, *numels;
    size_t arrays;
    reduction sum;       /* of each run of a block, into sums; NULL to replace elements */
    int takes_largest;   /* whether sums are compared, not added */
    double unit, *sums;
    replacement replace;
    double one, other;
};

static size_t blocks_of(size_t numel) { return numel / BLOCK + (numel % BLOCK != 0); }

/* A sum whose rounding errors are kept beside it and added at the end (Neumaier 1974). */
struct sum {
    double total, error;
};

static void add(struct sum *s, double x)
{
    const double t = s->total + x;
    s->error += fabs(s->total) >= fabs(x) ? (s->total - t) + x : (x - t) + s->total;
    s->total = t;
}

static double value(struct sum s) { return isfinite(s.total) ? s.total + s.error : s.total; }

/* Combine two parts: their sum, or the larger one; NaN stays. */
static void take(struct sum *s, double part, int takes_largest)
{
    if (!takes_largest)
        add(s, part);
    else if (!(part <= s->total) && !isnan(s->total))
        s->total = part;
}

static double sum_of_block(const struct job *job, const unsigned char *x, size_t n)
{
    struct sum total = {0, 0};
    for (size_t i = 0; i < n; i += RUN)
        take(&total, job->sum(x + i * job->loops->width, n - i < RUN ? n - i : RUN, job->unit), job->takes_largest);
    return value(total);
}

/* Work on those blocks of an array that are among low..high; its first one is number begin. */
static void work_on(const struct job *job, size_t i, size_t begin, size_t low, size_t high)
{
    const size_t width = job->loops->width, numel = job->numels[i];
    const size_t end = begin + blocks_of(numel), from = begin > low ? begin : low, to = end < high ? end : high;
    for (size_t k = from; k < to; k++) {
        const size_t b = job->replace ? to - 1 - (k - from) : k, first = (b - begin) * BLOCK;
        const size_t n = numel - first < BLOCK ? numel - first : BLOCK;
        unsigned char *x = (unsigned char *)(uintptr_t)job->addresses[i] + first * width;
        if (job->replace)
            job->replace(x, n, job->one, job->other);
        else
            job->sums[b] = sum_of_block(job, x, n);
    }
}

/* Work on the blocks low..high: what was summed last is scaled first, for it is in the cache still. */
static void work(const struct job *job, size_t low, size_t high)
{
    size_t begin = 0;
    for (size_t i = 0; i < job->arrays && (job->replace || begin < high); i++) {
        if (!job->replace) work_on(job, i, begin, low, high);
        begin += blocks_of(job->numels[i]);
    }
    for (size_t i = job->arrays; job->replace && i-- > 0 && begin > low;) {
        begin -= blocks_of(job->numels[i]);
        work_on(job, i, begin, low, high);
    }
}

struct share {
    const struct job *job;
    size_t low, high;
};

static void *work_on_share(void *given)
{
    const struct share *share = given;
    work(share->job, share->low, share->high);
    return NULL;
}

/* Share the blocks out among threads, this one among them; where no thread can be started, this one does its part. */
static void run(const struct job *job, size_t blocks, int threads)
{
    pthread_t ids[MAX_THREADS];
    struct share shares[MAX_THREADS];
    int started[MAX_THREADS];
    size_t count = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : (size_t)threads;
    if (count > blocks) count = blocks ? blocks : 1;
    for (size_t t = 0; t < count; t++) {
        shares[t] = (struct share){job, blocks / count * t + blocks % count * t / count,
                                   blocks / count * (t + 1) + blocks % count * (t + 1) / count};
        started[t] = t && pthread_create(&ids[t], NULL, work_on_share, &shares[t]) == 0;
    }
    for (size_t t = 0; t < count; t++)
        if (!started[t]) work_on_share(&shares[t]);
    for (size_t t = 0; t < count; t++)
        if (started[t]) pthread_join(ids[t], NULL);
}

static size_t size_of(const struct job *job, size_t *nbytes)
{
    size_t blocks = 0, numel = 0;
    for (size_t i = 0; i < job->arrays; i++) {
        blocks += blocks_of(job->numels[i]);
        numel += job->numels[i];
    }
    *nbytes = numel * job->loops->width;
    return blocks;
}

/* ---- what Python calls --------------------------------------------------------------------------------------------- */

/* Which of these functions there are, for a library that is older or newer than its Python. */
API int gradclip_version(void) { return 1; }

/* Return the sum of |x * unit|^order over all elements of all arrays, for an order of 1 or 2, or the largest |x * unit|
 * for an order of 0; and that of each array in each, if it is not NULL. */
API double gradclip_sum(int dtype, int level, const uint64_t *addresses, const uint64_t *numels, size_t arrays, int order,
                        double unit, int threads, double *each)
{
    const struct loops *loops = loops_for(dtype, level);
    struct job job = {.loops = loops, .addresses = addresses, .numels = numels, .arrays = arrays, .unit = unit,
                      .sum = order == 2 ? loops->squares : order == 1 ? loops->magnitudes : loops->largest,
                      .takes_largest = order == 0};
    size_t nbytes, blocks = size_of(&job, &nbytes), b = 0;
    if (threads > 1 && nbytes >= ALONE_BELOW_NBYTES) job.sums = malloc(blocks * sizeof *job.sums);
    if (job.sums) run(&job, blocks, threads);
    struct sum total = {0, 0};
    for (size_t i = 0; i < arrays; i++) {
        const unsigned char *x = (const unsigned char *)(uintptr_t)addresses[i];
        struct sum of_array = {0, 0};
        for (size_t first = 0; first < numels[i]; first += BLOCK, b++) {
            const size_t n = numels[i] - first < BLOCK ? numels[i] - first : BLOCK;
            const double part = job.sums ? job.sums[b] : sum_of_block(&job, x + first * loops->width, n);
            take(&of_array, part, job.takes_largest);
        }
        if (each) each[i] = value(of_array);
        take(&total, value(of_array), job.takes_largest);
    }
    free(job.sums);
    return value(total);
}

static void replace_all(int dtype, int level, const uint64_t *addresses, const uint64_t *numels, size_t arrays,
                        double one, double other, int threads, int clamps)
{
    const struct loops *loops = loops_for(dtype, level);
    struct job job = {.loops = loops, .addresses = addresses, .numels = numels, .arrays = arrays, .one = one,
                      .other = other, .replace = clamps ? loops->clamp : loops->scale};
    size_t nbytes;
    const size_t blocks = size_of(&job, &nbytes);
    run(&job, blocks, nbytes < ALONE_BELOW_NBYTES ? 1 : threads);
}

/* Multiply all elements by two numbers, one after the other, in float64, and round once. */
API void gradclip_scale(int dtype, int level, const uint64_t *addresses, const uint64_t *numels, size_t arrays,
                        double one, double other, int threads)
{
    replace_all(dtype, level, addresses, numels, arrays, one, other, threads, 0);
}

/* Move all elements into bounds; NaN stays. */
API void gradclip_clamp(int dtype, int level, const uint64_t *addresses, const uint64_t *numels, size_t arrays,
                        double low, double high, int threads)
{
    replace_all(dtype, level, addresses, numels, arrays, low, high, threads, 1);
}
