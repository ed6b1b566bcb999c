"""What the right answer is: no array library's norm, but exact arithmetic."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.sets import NDArray

_CHUNK = 1 << 13
"""Elements looked at in one go: few enough that BLAS does not start threads, which stall on a busy machine."""


def exact_norm(leaves: Sequence[NDArray]) -> float:
    """Return the Euclidean norm of all leaves laid end to end, to the last bit or two of float64.

    A square of a 16- or 32-bit number is exact in float64, and that of a float64 is the exact sum of two of them, so
    that the sum of squares by ``math.fsum`` is rounded once. It takes some 50 ns for an element.
    """
    return math.sqrt(math.fsum(square for leaf in leaves for part in _chunks(leaf) for square in _squares(part)))


def wide_norm(leaves: Sequence[NDArray]) -> float:
    """Return the norm in float64, good to about 1e-13: for a look at millions of numbers at a time."""
    total = 0.0
    for leaf in leaves:
        for part in _chunks(leaf):
            wide = part.astype(np.float64)
            total += float(np.dot(wide, wide))
    return math.sqrt(total)


def relative_error(value: float, right: float) -> float:
    """Return |value - right| / right; inf where the value is not a number at all."""
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
