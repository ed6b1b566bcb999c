// The kernels as functions of a library for the CPU: NAME(grid, block, arguments...).
#include "shim.h"
#include "kernels.cu"

#define HOST extern "C" void
#define PARTIALS_HOST(NAME)                                                                             \
  HOST host_##NAME(int grid, int block, const Piece* pieces, Partial* out, double p) {                  \
    shim::launch(grid, block, [=] { NAME(pieces, out, p); });                                           \
  }
PARTIALS_HOST(partials_inf)
PARTIALS_HOST(partials_one)
PARTIALS_HOST(partials_two)
PARTIALS_HOST(partials_any)

HOST host_merge(int grid, int block, const Partial* parts, const Range* ranges, Partial* results, double p) {
  shim::launch(grid, block, [=] { merge(parts, ranges, results, p); });
}
HOST host_finish(int grid, int block, const Partial* parts, i64 count, double p, double max_norm,
                 double eps, double loss, const double* on_device, int zero, Result* result) {
  shim::launch(grid, block, [=] { finish(parts, count, p, max_norm, eps, loss, on_device, zero, result); });
}
HOST host_scale(int grid, int block, const Piece* pieces, const double* divisors, const double* factors,
                const bool* changed, const bool* zeroed, int each) {
  shim::launch(grid, block, [=] { scale(pieces, divisors, factors, changed, zeroed, each); });
}
HOST host_clamp(int grid, int block, const Piece* pieces, double low, double high, const double* on_device) {
  shim::launch(grid, block, [=] { clamp(pieces, low, high, on_device); });
}
HOST host_order(int descending) { shim::descending = descending; }
