// Runs CUDA kernels on the CPU: every thread of a block is a coroutine, and __syncthreads() and shuffles yield.
//
// Blocks run one after the other. Between two yields the threads of a block run one by one, in ascending or descending
// order: results that depend on the order give a missing barrier away.
#pragma once
#include <math.h>
#include <string.h>
#include <ucontext.h>

#include <type_traits>
#include <vector>

#define __device__ inline
#define __global__
#define __shared__ static
#define __launch_bounds__(n)
#define INFINITE ((double)INFINITY)

struct Index { int x; };
static Index threadIdx, blockIdx, blockDim, gridDim;

inline float float_of_half(unsigned short bits) {
  _Float16 half;
  memcpy(&half, &bits, 2);
  return (float)half;
}
inline unsigned short half_of_float(float value) {
  _Float16 half = (_Float16)value;
  unsigned short bits;
  memcpy(&bits, &half, 2);
  return bits;
}
inline double double_of_float(float value) { return value; }
inline float float_of_double(double value) { return (float)value; }
inline float product(float a, float b) { return a * b; }
inline unsigned bits_of_float(float value) {
  unsigned bits;
  memcpy(&bits, &value, 4);
  return bits;
}
inline float float_of_bits(unsigned bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

namespace shim {
constexpr int MOST = 256, STACK = 1 << 16;
static ucontext_t scheduler, contexts[MOST];
static char stacks[MOST][STACK];
static bool alive[MOST];
static double slots[MOST];
static void (*body)(void*);
static void* arguments;
static bool descending = false;

inline void yield() { swapcontext(&contexts[threadIdx.x], &scheduler); }

static void enter() {
  body(arguments);
  alive[threadIdx.x] = false;
  yield();
}

static void run_block() {
  for (int t = 0; t < blockDim.x; ++t) {
    getcontext(&contexts[t]);
    contexts[t].uc_stack.ss_sp = stacks[t];
    contexts[t].uc_stack.ss_size = STACK;
    makecontext(&contexts[t], enter, 0);
    alive[t] = true;
  }
  for (bool any = true; any;) {
    any = false;
    for (int turn = 0; turn < blockDim.x; ++turn) {
      const int t = descending ? blockDim.x - 1 - turn : turn;
      if (!alive[t]) continue;
      any = true;
      threadIdx.x = t;
      swapcontext(&scheduler, &contexts[t]);
    }
  }
}

template <class Kernel>
void launch(int grid, int block, Kernel kernel) {
  gridDim.x = grid;
  blockDim.x = block;
  arguments = &kernel;
  body = [](void* it) { (*(Kernel*)it)(); };
  for (blockIdx.x = 0; blockIdx.x < grid; ++blockIdx.x) run_block();
  arguments = nullptr;
}
}  // namespace shim

inline void __syncthreads() { shim::yield(); }

inline double __shfl_xor_sync(unsigned, double value, int mask) {
  const int me = threadIdx.x;
  shim::slots[me] = value;
  shim::yield();
  value = shim::slots[me ^ mask];
  shim::yield();
  return value;
}
