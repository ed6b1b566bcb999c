/* Sums over, and multiplication of, many arrays in the host's memory, in the dtypes of gradients.
 *
 * No Python and no framework here: arrays come as addresses, counts of bytes and dtypes. Nothing is kept between
 * calls, so that any number of threads may call at once, and a process may fork after any call. A caller may lend the
 * threads of a framework.
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
#define INLINE __attribute__((always_inline)) static inline
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#define BLOCK ((size_t)1 << 17)          /* elements that one thread takes at a time */
#define STREAMS 4                        /* places of a block that are read at once */
#define RUN ((size_t)1 << 9)             /* elements of a stream in one set of running sums: 64 are added to each */
#define MAX_THREADS 64
#define SHARE_PARTS 16                   /* the most parts in which a thread's share is taken */
#define NBYTES_A_STARTED_THREAD ((size_t)1 << 21) /* fewer are read before another thread starts, which takes 40 us */
#define NBYTES_A_TEAM_THREAD ((size_t)1 << 18)    /* a team's threads are there already */

enum dtype { F64, F32, F16, BF16 };
enum work { SUM, SCALE, CLAMP, CLEAR };

typedef double double4 __attribute__((vector_size(32)));
typedef int64_t long4 __attribute__((vector_size(32)));
typedef float float4 __attribute__((vector_size(16)));
typedef float float8 __attribute__((vector_size(32)));
typedef uint32_t uint8 __attribute__((vector_size(32)));

typedef double (*reduction)(const unsigned char *x, size_t n, double multiplier);
typedef void (*replacement)(const unsigned char *x, unsigned char *out, size_t n, double one, double other);

/* What can be done with a block of elements of one dtype, at one level of SIMD. */
struct loops {
    reduction powers[3]; /* by order: 0 for the largest element, 1, 2 */
    replacement scale, clamp;
};

/* The binary logarithm of the bytes of an element. */
INLINE int shift_of(enum dtype dtype) { return dtype == F64 ? 3 : dtype == F32 ? 2 : 1; }

INLINE size_t width_of(enum dtype dtype) { return (size_t)1 << shift_of(dtype); }

/* Return a number rounded to float32 towards zero: what is cut off has its sign, so that inf times both is inf. */
INLINE double truncated_to_float(double x)
{
    const float rounded = (float)x;
    return fabs((double)rounded) > fabs(x) ? nextafterf(rounded, 0) : rounded;
}

/* Whether float32 holds a number to its full precision. */
INLINE int is_normal_float(double x) { return fabs(x) >= 0x1p-126 && fabs(x) < 0x1p127; }

__attribute__((unused)) static float float_of_f16(uint16_t bits)
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
    if (bits < 0x38800000) { /* a subnormal number, or zero: this sum rounds to multiples of 2^-24 */
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

/* Return the fastest loops that this processor has, or the plain ones for level 0: one for each dtype. */
static const struct loops *loops_for(int level)
{
#if defined(__x86_64__) && defined(__GNUC__)
    if (level && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("fma"))
        return avx2_table;
#endif
    (void)level;
    return base_table;
}

/* ---- many arrays: a job is cut into blocks, the blocks are shared out ---------------------------------- */

/* What a caller gives: addresses, counts of bytes and dtypes (indices of a table of loops) of some arrays. */
struct arrays {
    const uint64_t *addresses, *nbytes;
    const unsigned char *dtypes;
    size_t count;
};

/* Two numbers for all arrays, or for each (step 1): what elements are multiplied by, or their bounds. */
struct numbers {
    const double *one, *other;
    size_t step;
};

struct job {
    enum work work;
    struct arrays arrays;
    const struct loops *loops; /* one for each dtype */
    int order;                 /* of the powers that are summed: 1 or 2; 0 for the largest element */
    double multiplier;         /* what elements are multiplied by before they are summed */
    double *sums;              /* of each block */
    const uint64_t *targets;   /* where replaced elements go: the addresses, or others that do not overlap */
    struct numbers numbers;
};

static size_t numel_of(const struct job *job, size_t i)
{
    return job->arrays.nbytes[i] >> shift_of((enum dtype)job->arrays.dtypes[i]);
}

static size_t blocks_of(const struct job *job, size_t i) { return (numel_of(job, i) + BLOCK - 1) / BLOCK; }

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

/* Combine two parts: their sum, or for order 0 the larger one; NaN stays. */
static void take(struct sum *s, double part, int order)
{
    if (order)
        add(s, part);
    else if (!(part <= s->total) && !isnan(s->total))
        s->total = part;
}

/* Work on block b of the job, which is block k of array i. */
static void work_on_block(const struct job *job, size_t i, size_t k, size_t b)
{
    const enum dtype dtype = (enum dtype)job->arrays.dtypes[i];
    const struct loops *loops = &job->loops[dtype];
    const size_t first = k * BLOCK, numel = numel_of(job, i), n = numel - first < BLOCK ? numel - first : BLOCK;
    const unsigned char *x = (const unsigned char *)(uintptr_t)job->arrays.addresses[i] + first * width_of(dtype);
    if (job->work == SUM) {
        job->sums[b] = loops->powers[job->order](x, n, job->multiplier);
        return;
    }
    unsigned char *out = (unsigned char *)(uintptr_t)job->targets[i] + first * width_of(dtype);
    const size_t which = i * job->numbers.step;
    if (job->work == CLEAR)
        memset(out, 0, n * width_of(dtype));
    else
        (job->work == SCALE ? loops->scale : loops->clamp)(x, out, n, job->numbers.one[which],
                                                           job->numbers.other[which]);
}

/* An array, and its first block. */
struct place {
    size_t array, block;
};

/* Work on the blocks low..high, of which none is before a place. They are summed from the first to the last, and
 * written from the last to the first: what was read last is in the cache still. */
static void work_on_blocks(const struct job *job, struct place from, size_t low, size_t high)
{
    size_t i = from.array, begin = from.block, end; /* array i has the blocks begin..end */
    if (job->work == SUM) {
        for (; i < job->arrays.count && begin < high; i++, begin = end) {
            end = begin + blocks_of(job, i);
            for (size_t b = begin > low ? begin : low; b < end && b < high; b++) work_on_block(job, i, b - begin, b);
        }
        return;
    }
    for (end = begin; i < job->arrays.count && end < high; i++) end += blocks_of(job, i);
    while (i > 0 && end > low) {
        const size_t last = i--;
        begin = end - blocks_of(job, i);
        if (end - begin > 1) {
            for (size_t b = end < high ? end : high; b > begin && b > low; b--)
                work_on_block(job, i, b - 1 - begin, b - 1);
        } else {
            size_t numel = numel_of(job, i); /* arrays of one block lie beside each other: together, and upwards */
            while (i > 0 && begin > low && (numel += numel_of(job, i - 1)) <= BLOCK) begin -= blocks_of(job, --i);
            size_t b = begin;
            for (size_t k = i; k < last; b += blocks_of(job, k++))
                if (blocks_of(job, k)) work_on_block(job, k, 0, b);
        }
        end = begin;
    }
}

/* The blocks low..high, of which some have been taken: from the first on for sums, from the last on for writes. */
struct share {
    struct place from; /* where the first block is */
    size_t low, high, taken;
};

/* The threads that work on a job. Each has a share, which it works on first: when gradients are multiplied, it has read
 * the same ones before. Then it takes what others have left of theirs, because they came late, or not at all. */
struct crew {
    const struct job *job;
    pthread_t caller; /* the thread that has the first share */
    size_t others;    /* how many other threads have come */
    size_t threads, at_once;
    struct share shares[MAX_THREADS];
};

static void work_on_share(const struct crew *crew, struct share *share)
{
    const size_t blocks = share->high - share->low;
    size_t first;
    while ((first = __atomic_fetch_add(&share->taken, crew->at_once, __ATOMIC_RELAXED)) < blocks) {
        const size_t last = blocks - first < crew->at_once ? blocks : first + crew->at_once;
        if (crew->job->work == SUM)
            work_on_blocks(crew->job, share->from, share->low + first, share->low + last);
        else
            work_on_blocks(crew->job, share->from, share->high - last, share->high - first);
    }
}

/* What each thread does. */
static void join(void *given)
{
    struct crew *crew = given;
    const int is_caller = pthread_equal(pthread_self(), crew->caller);
    const size_t mine = is_caller ? 0 : 1 + __atomic_fetch_add(&crew->others, 1, __ATOMIC_RELAXED);
    for (size_t t = 0; t < crew->threads; t++) work_on_share(crew, &crew->shares[(mine + t) % crew->threads]);
}

static void *join_thread(void *given)
{
    join(given);
    return NULL;
}

/* How a framework calls a function in each of its own threads: GOMP_parallel of its OpenMP runtime. NULL: there is no
 * such function. Its threads wait for work in a loop, and would take time from threads beside them. */
typedef void (*team)(void (*function)(void *), void *argument, unsigned threads, unsigned flags);

/* A child process has none of the team's threads, though GNU's runtime waits for them there. */
static int is_child;

#ifndef _WIN32
static void after_fork(void) { is_child = 1; }

__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork); }
#endif

/* Work on all blocks, in this thread and others: those of the team, or threads that are started and end here. */
static void run(const struct job *job, size_t blocks, size_t threads, team team)
{
    struct place at = {0, 0};
    if (threads < 2) {
        work_on_blocks(job, at, 0, blocks);
        return;
    }
    struct crew crew = {.job = job, .caller = pthread_self(), .threads = threads};
    crew.at_once = blocks / threads / SHARE_PARTS + 1;
    for (size_t t = 0; t < threads; t++) {
        crew.shares[t].low = blocks / threads * t + blocks % threads * t / threads;
        crew.shares[t].high = blocks / threads * (t + 1) + blocks % threads * (t + 1) / threads;
        while (at.block + blocks_of(job, at.array) <= crew.shares[t].low) at.block += blocks_of(job, at.array++);
        crew.shares[t].from = at;
    }
    if (team) { /* all of its threads: of fewer, GNU's runtime ends the others, and starts them again later */
        team(join, &crew, 0, 0);
        return;
    }
    pthread_t ids[MAX_THREADS];
    size_t started = 0;
    while (started < threads - 1 && pthread_create(&ids[started], NULL, join_thread, &crew) == 0) started++;
    join(&crew);
    while (started > 0) pthread_join(ids[--started], NULL);
}

/* Return how many blocks a job has, and of how many threads each has enough to do. */
static size_t size_of(const struct job *job, int most_threads, team team, size_t *threads)
{
    size_t blocks = 0, nbytes = 0;
    for (size_t i = 0; i < job->arrays.count; i++) {
        blocks += blocks_of(job, i);
        nbytes += job->arrays.nbytes[i];
    }
    *threads = nbytes / (team ? NBYTES_A_TEAM_THREAD : NBYTES_A_STARTED_THREAD);
    if (*threads > blocks) *threads = blocks;
    if (*threads > MAX_THREADS) *threads = MAX_THREADS;
    if (most_threads < 1 || *threads < 1) *threads = 1;
    if (*threads > (size_t)most_threads) *threads = (size_t)(most_threads < 1 ? 1 : most_threads);
    return blocks;
}

/* ---- what Python calls --------------------------------------------------------------------------------- */

/* Which of these functions there are, for a library that is older or newer than its Python. */
API int gradclip_version(void) { return 3; }

/* DLPack's description of a tensor, which does not own it (DLTensor of dlpack.h, version 1). */
struct dl_tensor {
    void *data;
    int32_t device_type, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    const int64_t *shape, *strides; /* in elements */
    uint64_t byte_offset;
};

enum dl_code { DL_FLOAT = 2, DL_BFLOAT = 4, DL_COMPLEX = 5 };

#define DL_CPU 1
#define UNREADABLE 255

/* Return what this library calls the dtype of a tensor, of a complex one that of its parts; or UNREADABLE. */
static unsigned char dtype_of(const struct dl_tensor *x)
{
    const int bits = x->code == DL_COMPLEX ? x->bits / 2 : x->bits;
    if (x->lanes != 1) return UNREADABLE;
    if (x->code == DL_BFLOAT) return bits == 16 ? BF16 : UNREADABLE;
    if (x->code != DL_FLOAT && x->code != DL_COMPLEX) return UNREADABLE;
    return bits == 64 ? F64 : bits == 32 ? F32 : bits == 16 ? F16 : UNREADABLE;
}

/* Whether the elements of a tensor lie one after the other in C's order; their number is written to numel. */
static int is_in_order(const struct dl_tensor *x, uint64_t *numel)
{
    int64_t step = 1;
    int in_order = 1;
    for (int32_t axis = x->ndim; axis-- > 0;) {
        if (x->shape[axis] != 1) in_order = in_order && x->strides && x->strides[axis] == step;
        step *= x->shape[axis];
    }
    *numel = (uint64_t)step;
    return in_order || !step;
}

/* Write where tensors of a framework lie: their addresses, counts of bytes and dtypes. The framework tells by its
 * function find (dltensor_from_py_object_no_sync of DLPack's exchange API), which needs Python's lock.
 *
 * Return 1 if all of them are real, or 2 if some are complex; 0 if one is not in the host's memory, not in C's order or
 * of another dtype, or has no memory; -1 if find has raised an exception. */
API int gradclip_locate(int (*find)(void *, struct dl_tensor *), void *const *tensors, size_t count,
                        uint64_t *addresses, uint64_t *nbytes, unsigned char *dtypes)
{
    int is_complex = 0;
    for (size_t i = 0; i < count; i++) {
        struct dl_tensor x;
        uint64_t numel;
        if (find(tensors[i], &x)) return -1;
        dtypes[i] = dtype_of(&x);
        if (x.device_type != DL_CPU || !x.data || dtypes[i] == UNREADABLE || !is_in_order(&x, &numel)) return 0;
        addresses[i] = (uint64_t)(uintptr_t)x.data + x.byte_offset;
        nbytes[i] = numel * (x.bits / 8);
        is_complex |= x.code == DL_COMPLEX;
    }
    return 1 + is_complex;
}

/* Return the sum of |x * multiplier|^order over all elements of all arrays, for an order of 1 or 2, or the largest
 * |x * multiplier| for an order of 0; and that of each array in each, if it is not NULL. */
API double gradclip_sum(const uint64_t *addresses, const uint64_t *nbytes, const unsigned char *dtypes, size_t count,
                        int level, int order, double multiplier, int most_threads, team team, double *each)
{
    struct job job = {.work = SUM, .arrays = {addresses, nbytes, dtypes, count}, .loops = loops_for(level),
                      .order = order, .multiplier = multiplier};
    team = is_child ? NULL : team;
    size_t threads, b = 0;
    const size_t blocks = size_of(&job, most_threads, team, &threads);
    if (threads > 1) job.sums = malloc(blocks * sizeof *job.sums);
    if (job.sums) run(&job, blocks, threads, team);
    struct sum total = {0, 0};
    for (size_t i = 0; i < count; i++) {
        const enum dtype dtype = (enum dtype)dtypes[i];
        const reduction powers = job.loops[dtype].powers[order];
        const unsigned char *x = (const unsigned char *)(uintptr_t)addresses[i];
        const size_t numel = numel_of(&job, i);
        struct sum of_array = {0, 0};
        for (size_t first = 0; first < numel; first += BLOCK, b++) {
            const size_t n = numel - first < BLOCK ? numel - first : BLOCK;
            take(&of_array, job.sums ? job.sums[b] : powers(x + first * width_of(dtype), n, multiplier), order);
        }
        if (each) each[i] = value(of_array);
        take(&total, value(of_array), order);
    }
    free(job.sums);
    return value(total);
}

/* Write to targets what becomes of all elements: their product with two numbers, one after the other (work 1); the
 * nearest number within two bounds, where NaN stays (2); zero (3). There are two numbers for all arrays, or two for
 * each. */
API void gradclip_replace(const uint64_t *addresses, const uint64_t *nbytes, const unsigned char *dtypes,
                          size_t count, const uint64_t *targets, int level, int work, const double *one,
                          const double *other, int each, int most_threads, team team)
{
    const struct job job = {.work = (enum work)work, .arrays = {addresses, nbytes, dtypes, count},
                            .loops = loops_for(level), .targets = targets, .numbers = {one, other, each ? 1 : 0}};
    team = is_child ? NULL : team;
    size_t threads;
    const size_t blocks = size_of(&job, most_threads, team, &threads);
    run(&job, blocks, threads, team);
}

struct span {
    uint64_t start, end;
};

static int by_start(const void *one, const void *other)
{
    const uint64_t a = ((const struct span *)one)->start, b = ((const struct span *)other)->start;
    return (a > b) - (a < b);
}

/* Return 1 if no two of the arrays share a byte; 0 if some do, or if that cannot be found out for want of memory. */
API int gradclip_apart(const uint64_t *addresses, const uint64_t *nbytes, size_t count)
{
    struct span *spans = malloc((count + 1) * sizeof *spans);
    size_t n = 0;
    int sorted = 1, apart = 1;
    if (!spans) return 0;
    for (size_t i = 0; i < count; i++) {
        if (!nbytes[i]) continue;
        spans[n].start = addresses[i];
        spans[n].end = addresses[i] + nbytes[i];
        sorted = sorted && (!n || spans[n - 1].start <= spans[n].start);
        n++;
    }
    if (!sorted) qsort(spans, n, sizeof *spans, by_start);
    for (size_t i = 1; i < n; i++) apart = apart && spans[i - 1].end <= spans[i].start;
    free(spans);
    return apart;
}
