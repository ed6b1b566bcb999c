"""The right norm, computed in exact arithmetic and not by an array library."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.sets import NDArray

_CHUNK = 1 << 13
"""Elements of one BLAS call: few enough that BLAS starts no threads, which would stall on a busy machine."""


def exact_norm(leaves: Sequence[NDArray]) -> float:
    """Return the Euclidean norm of all leaves laid end to end, to the last bit or two of float64.

    The square of a 16- or 32-bit number is exact in float64, and that of a float64 is the exact sum of two float64
    numbers. So ``math.fsum`` rounds the sum of squares once. It takes about 50 ns per element.
    """
    return math.sqrt(math.fsum(square for leaf in leaves for part in _chunks(leaf) for square in _squares(part)))


def wide_norm(leaves: Sequence[NDArray]) -> float:
    """Return the norm in float64 with an error of about 1e-13, fast enough for millions of numbers."""
    total = 0.0
    for leaf in leaves:
        for part in _chunks(leaf):
            wide = part.astype(np.float64)
            total += float(np.dot(wide, wide))
    return math.sqrt(total)


def relative_error(value: float, right: float) -> float:
    """Return |value - right| / right; inf if the value is NaN."""
    if math.isnan(value):
        return math.inf
    if value == right:
        return 0.0
    return abs(value - right) / right if right else math.inf


def _chunks(leaf: NDArray) -> Iterator[NDArray]:
    flat = leaf.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK]


def _squares(part: NDArray) -> list[float]:
    x = part.astype(np.float64)
    square = x * x
    if part.dtype.itemsize < 8:
        return list(square.tolist())
    # Veltkamp's split and Dekker's product: square + rest is x² exactly, away from overflow and underflow.
    shifted = x * 134217729.0  # 2^27 + 1
    high = shifted - (shifted - x)
    low = x - high
    rest = ((high * high - square) + 2.0 * high * low) + low * low
    return [*square.tolist(), *rest.tolist()]
