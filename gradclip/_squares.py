"""Sums of squares of NumPy arrays: one read at the speed of memory, and a sum that knows when it cannot be trusted.

``np.vecdot`` adds squares in blocks short enough that float32 rounding stays below 1e-6, and the blocks' sums are added
in float64. That cannot see magnitudes whose squares leave float32; whether it could have gone wrong shows in the sum.
Many megabytes are read at several places at once, and by several threads, as BLAS does: one alone waits for memory.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from gradclip import _namespace as ns
from gradclip._chunks import HOST_ELEMENTS, boxes
from gradclip._memory import in_byte_order
from gradclip._threads import SHARED, cut, share

NDArray: TypeAlias = np.ndarray[Any, Any]

_BLOCK = {np.dtype(np.float32): 512, np.dtype(np.float64): 1024}
"""Elements of one dot product: BLAS keeps 32 or more running sums, so that each adds 16 squares of float32 at most.

That errs by 3e-7 at the worst, which is that all numbers are equal, and by 1e-8 as a rule. float64 has digits to spare.
"""

_FEW = 48
"""Sums of blocks that Python adds up sooner than NumPy, which takes a microsecond to begin."""

_PACK = 1 << 14
"""Arrays below this many elements are laid end to end first: a copy in the cache costs less than a call."""

_PACKED = 1 << 17

LOSS: dict[np.dtype[Any], tuple[float, float]] = {
    np.dtype(np.float32): (2.0**-126, 2.0**-28),
    np.dtype(np.float64): (2.0**-1022, 2.0**-58),
}
"""For each dtype that is squared in: what a square can lose by underflow, and which part of the sum may be lost."""


class Squares:
    """A running sum of squares.

    Parameters
    ----------
    threads : int
        How many may read at the same time. The same number gives the same bits.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._total = 0.0
        self._counts: dict[np.dtype[Any], int] = dict.fromkeys(LOSS, 0)
        self._waiting: list[NDArray] = []

    @property
    def total(self) -> float:
        """The sum."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            with np.errstate(all="ignore"):
                self._total += _sum_of_all(waiting, self._threads)
        return self._total

    def add_all(self, arrays: Sequence[NDArray]) -> None:
        """Add the squares of arrays, small ones of a dtype laid end to end."""
        packs: dict[np.dtype[Any], list[NDArray]] = {dtype: [] for dtype in LOSS}
        sizes: dict[np.dtype[Any], int] = dict.fromkeys(LOSS, 0)
        for x in arrays:
            if x.size >= _PACK or x.dtype not in sizes:
                self.add(x)
                continue
            packs[x.dtype].append(x.reshape(-1))
            sizes[x.dtype] += x.size
            if sizes[x.dtype] >= _PACKED:
                self.add_flat(np.concatenate(packs[x.dtype]))
                packs[x.dtype], sizes[x.dtype] = [], 0
        for pack in packs.values():
            if pack:
                self.add_flat(pack[0] if len(pack) == 1 else np.concatenate(pack))

    def add(self, x: NDArray) -> None:
        """Add the squares of all elements; the array must not change until the sum was asked for."""
        for part in _real_parts(x):
            ordered = in_byte_order(part)
            if ordered.flags.c_contiguous and ordered.dtype in LOSS:  # BLAS adds one by one where there are strides
                self._later(ordered.reshape(-1))
                continue
            fits = ns.dtype_name(part.dtype) == "float16"
            for flat in _widened(ordered):
                self.add_flat(flat, fits=fits)

    def add_flat(self, flat: NDArray, *, fits: bool = False) -> None:
        """Add the squares of a 1-D array of float32 or float64; ``fits`` says that none leaves the dtype's range."""
        self.add_sum(sum_of_squares(flat), 0 if fits else flat.size, flat.dtype)

    def add_sum(self, total: float, count: int, dtype: np.dtype[Any]) -> None:
        """Add a sum of squares that were calculated in a dtype, which ``count`` of them may have left."""
        self._total += total
        self._counts[dtype] += count

    def right(self) -> bool:
        """Whether no square that matters overflowed or underflowed."""
        total = self.total
        return all(holds(total, count, dtype) for dtype, count in self._counts.items())

    def _later(self, flat: NDArray) -> None:
        self._waiting.append(flat)
        self._counts[flat.dtype] += flat.size


def holds(total: float, count: int, dtype: np.dtype[Any]) -> bool:
    """Whether none of the squares that matters left the dtype, for a sum of ``count`` squares that it was to hold."""
    square, part = LOSS[dtype]
    return math.isfinite(total) and count * square <= total * part


def sum_of_plain(arrays: Sequence[NDArray]) -> float | None:
    """Return the sum of squares of a few megabytes in few calls, for a small model waits for Python and not for memory.

    None if they are not all contiguous and of float32, or of float64, or if the sum cannot be trusted.
    """
    dtype = arrays[0].dtype
    if dtype not in LOSS:
        return None
    flats: list[NDArray] = []
    small: list[NDArray] = []
    size = packed = 0
    for x in arrays:
        if x.dtype is not dtype or not x.flags.c_contiguous:
            return None
        size += x.size
        if x.size >= _PACK:
            flats.append(x.reshape(-1))
        else:
            packed += x.size
            small.append(x.reshape(-1))
    if packed > _PACKED or size * dtype.itemsize >= SHARED:
        return None
    if small:
        flats.append(small[0] if len(small) == 1 else np.concatenate(small))
    total = sum(map(sum_of_squares, flats))
    return total if holds(total, size, dtype) else None


def sum_of_squares(flat: NDArray) -> float:
    """Return the sum of squares of a 1-D array of float32 or float64, in blocks."""
    block = _BLOCK[flat.dtype]
    whole = flat.size - flat.size % block
    if not whole:
        return float(np.vecdot(flat, flat))
    blocks = flat[:whole].reshape(-1, block)
    sums = np.vecdot(blocks, blocks)
    total = sum(sums.tolist()) if len(sums) < _FEW else float(np.add.reduce(sums, dtype=np.float64))
    if whole == flat.size:
        return total
    rest = flat[whole:]
    return total + float(np.vecdot(rest, rest))


def pieces(x: NDArray) -> Iterator[NDArray]:
    """Yield views of an array that fit into the cache, and make it up."""
    if x.size <= HOST_ELEMENTS:
        yield x
        return
    for key in boxes(x.shape, HOST_ELEMENTS):
        yield x[key]


def _sum_of_all(flats: Sequence[NDArray], threads: int) -> float:
    if sum([x.nbytes for x in flats]) < SHARED:
        return sum(map(sum_of_squares, flats))
    kinds = {x.dtype for x in flats}
    return math.fsum(_sum_from_memory([x for x in flats if x.dtype == kind], threads) for kind in sorted(kinds))


def _sum_from_memory(flats: Sequence[NDArray], threads: int) -> float:
    """Return the sum of squares of 1-D arrays of one dtype, each thread adding as many blocks as the others."""
    block = _BLOCK[flats[0].dtype]
    ends = [x.size - x.size % block for x in flats]
    blocks = [x[:end].reshape(-1, block) for x, end in zip(flats, ends, strict=True)]
    sums = [np.empty(len(rows), rows.dtype) for rows in blocks]
    lengths = list(map(len, blocks))

    def work(begin: int, end: int) -> None:
        for i, low, high in cut(lengths, begin, end):
            _dots(blocks[i][low:high], sums[i][low:high])

    share(work, sum(lengths), threads)
    rest = np.concatenate([x[end:] for x, end in zip(flats, ends, strict=True)])
    return float(np.add.reduce(np.concatenate(sums), dtype=np.float64)) + sum_of_squares(rest)


def _dots(rows: NDArray, out: NDArray) -> None:
    """Write dot products of rows with themselves, in the order in which they are read: at two places in turn.

    A processor fetches ahead at both, so that more is on its way from memory.
    """
    count, length = rows.shape
    half = count // 2
    pairs = rows[: 2 * half].reshape(2, half, length).swapaxes(0, 1)
    np.vecdot(pairs, pairs, out[: 2 * half].reshape(half, 2))
    np.vecdot(rows[2 * half :], rows[2 * half :], out[2 * half :])


def _real_parts(x: NDArray) -> Sequence[NDArray]:
    if x.dtype.kind != "c":
        return [x]
    return [x.view(x.real.dtype)] if x.flags.c_contiguous and x.ndim else [x.real, x.imag]


def _widened(x: NDArray) -> Iterator[NDArray]:
    """Yield all elements as 1-D arrays of float32 or float64, a chunk at a time."""
    dtype = ns.norm_dtype(np, x)
    for part in pieces(x):
        yield np.ascontiguousarray(part, dtype=dtype).reshape(-1)
