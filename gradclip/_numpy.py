"""``Ops`` for NumPy: one read for the norm at the speed of memory, one write only where something is clipped.

Sums of squares run through ``np.vecdot`` in blocks short enough that float32 rounding stays below 1e-6, and the
blocks' sums are added in float64. That cannot see magnitudes whose squares leave float32; whether it could have gone
wrong shows in the sum, and then the leaves are read again the slow way, which is right at any magnitude.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from gradclip import _namespace as ns
from gradclip._chunks import HOST_ELEMENTS, boxes
from gradclip._coefficient import Coefficient
from gradclip._memory import in_byte_order
from gradclip._ops import ArrayOps, bounds_for
from gradclip._partial import NormPartial
from gradclip._types import Array, Scalar

NDArray: TypeAlias = np.ndarray[Any, Any]

_BLOCK = 1024
"""Elements of one dot product: BLAS keeps 32 or more running sums, so that each adds 32 squares at most. float32 then
errs by 6e-7 at the worst, which is that all numbers are equal, and by 1e-8 as a rule."""

_FEW = 48
"""Sums of blocks that Python adds up sooner than NumPy, which takes a microsecond to begin."""

_PACK = 1 << 14
"""Leaves below this many elements are laid end to end first: a copy in the cache costs less than a call."""

_PACKED = 1 << 17

# For each dtype that is squared in: what a square can lose by underflow, and which part of the sum may be lost.
_LOSS: dict[np.dtype[Any], tuple[float, float]] = {
    np.dtype(np.float32): (2.0**-126, 2.0**-28),
    np.dtype(np.float64): (2.0**-1022, 2.0**-58),
}


class NumpyOps(ArrayOps):
    """The operations of ``Ops`` for NumPy arrays; what is not here, or not ordinary, is ``ArrayOps``'."""

    def partial(self, leaves: Sequence[NDArray], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end."""
        if ord == 2:
            squares = Squares()
            for x in _packed(leaves):
                squares.add(x)
            if squares.right():
                return _plain(squares.total, leaves)
        return super().partial(leaves, ord)

    def partials(self, leaves: Sequence[NDArray], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        if ord != 2:
            return super().partials(leaves, ord)
        scales, totals = np.ones(len(leaves)), np.empty(len(leaves))
        for i, x in enumerate(leaves):
            squares = Squares()
            squares.add(x)
            if squares.right():
                totals[i] = squares.total
            else:
                partial = self._whole(x, ord)
                scales[i], totals[i] = partial.scale, partial.total
        return NormPartial(scales, totals, ord, _plain(0.0, leaves).dtype)

    def scale(self, leaves: Sequence[NDArray], coefficients: Sequence[Coefficient]) -> list[NDArray]:
        """Return each leaf times its coefficient; the same leaf where that changes nothing."""
        return [self._scaled(x, c) for x, c in zip(leaves, coefficients, strict=True)]

    def scale_(self, leaves: Sequence[NDArray], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place, if that changes anything."""
        if coefficients and all(c is coefficients[0] for c in coefficients) and _is_identity(coefficients[0]):
            return
        known: dict[tuple[int, np.dtype[Any]], float | None] = {}  # mostly one coefficient for all leaves
        # The last leaves first: their norm was read last, so they are still in the cache.
        for x, c in reversed(list(zip(leaves, coefficients, strict=True))):
            key = id(c), x.dtype
            if key not in known:
                known[key] = plain_factor(x, c)
            factor = known[key]
            if factor is None:
                super().scale_([x], [c])
            elif factor != 1.0:
                _multiply_(x, factor)

    def clamp(self, leaves: Sequence[NDArray], low: Scalar, high: Scalar) -> list[NDArray]:
        """Return each leaf with its elements moved into the bounds."""
        bounds = self._bounds(leaves, low, high)
        return [np.clip(x, *bounds[x.dtype], out=np.empty_like(x)) for x in leaves]

    def clamp_(self, leaves: Sequence[NDArray], low: Scalar, high: Scalar) -> None:
        """Move each leaf's elements into the bounds in place."""
        bounds = self._bounds(leaves, low, high)
        for x in leaves:
            np.clip(x, *bounds[x.dtype], out=x)

    def _bounds(self, leaves: Sequence[NDArray], low: Scalar, high: Scalar) -> dict[np.dtype[Any], Any]:
        one_of_each = {x.dtype: x for x in leaves}
        return {dtype: bounds_for(self.xp, x, low, high) for dtype, x in one_of_each.items()}

    def _scaled(self, x: NDArray, c: Coefficient) -> NDArray:
        factor = plain_factor(x, c)
        if factor is None:
            scaled: NDArray = super().scale([x], [c])[0]
            return scaled
        if factor == 1.0:
            return x
        if x.dtype in _LOSS:
            return np.asarray(np.multiply(x, x.dtype.type(factor)))
        out = np.array(x, copy=True)
        _multiply_(out, factor)
        return out


class Squares:
    """A running sum of squares that knows when it cannot be trusted."""

    def __init__(self) -> None:
        self.total = 0.0
        self._lost: dict[np.dtype[Any], float] = dict.fromkeys(_LOSS, 0.0)

    def add(self, x: NDArray) -> None:
        """Add the squares of all elements."""
        for part in _real_parts(x):
            fits = ns.dtype_name(part.dtype) == "float16"
            for flat in _flat_chunks(part):
                self.add_flat(flat, fits=fits)

    def add_flat(self, flat: NDArray, *, fits: bool = False) -> None:
        """Add the squares of a 1-D array of float32 or float64; ``fits`` says that none leaves the dtype's range."""
        self.add_sum(sum_of_squares(flat), 0 if fits else flat.size, flat.dtype)

    def add_sum(self, total: float, count: int, dtype: np.dtype[Any]) -> None:
        """Add a sum of squares that were calculated in a dtype, which ``count`` of them may have left."""
        self.total += total
        self._lost[dtype] += count * _LOSS[dtype][0]

    def right(self) -> bool:
        """Whether no square that matters overflowed or underflowed."""
        if not math.isfinite(self.total):
            return False
        return all(lost <= self.total * _LOSS[dtype][1] for dtype, lost in self._lost.items())


def sum_of_squares(flat: NDArray) -> float:
    """Return the sum of squares of a 1-D array of float32 or float64, in blocks."""
    whole = flat.size - flat.size % _BLOCK
    if not whole:
        return float(np.vecdot(flat, flat))
    blocks = flat[:whole].reshape(-1, _BLOCK)
    sums = np.vecdot(blocks, blocks)
    total = sum(sums.tolist()) if len(sums) < _FEW else float(np.add.reduce(sums, dtype=np.float64))
    if whole == flat.size:
        return total
    rest = flat[whole:]
    return total + float(np.vecdot(rest, rest))


def _real_parts(x: NDArray) -> Sequence[NDArray]:
    if x.dtype.kind != "c":
        return [x]
    return [x.view(x.real.dtype)] if x.flags.c_contiguous and x.ndim else [x.real, x.imag]


def _flat_chunks(x: NDArray) -> Iterator[NDArray]:
    """Yield all elements as 1-D arrays of float32 or float64: a view of the leaf if its memory allows, else chunks."""
    ordered = in_byte_order(x)
    if ordered.flags.c_contiguous and ordered.dtype in _LOSS:  # BLAS adds one by one where there are strides
        yield ordered.reshape(-1)
        return
    dtype = np.float64 if ns.is_double(ordered.dtype) else np.float32
    for part in _chunks(ordered):
        yield np.ascontiguousarray(part, dtype=dtype).reshape(-1)


def _chunks(x: NDArray) -> Iterator[NDArray]:
    """Yield views of the leaf that fit into the cache, and make it up."""
    if x.size <= HOST_ELEMENTS:
        yield x
        return
    for key in boxes(x.shape, HOST_ELEMENTS):
        yield x[key]


def _packed(leaves: Sequence[NDArray]) -> Iterator[NDArray]:
    """Yield the leaves, small ones of a dtype laid end to end."""
    packs: dict[np.dtype[Any], list[NDArray]] = {}
    sizes: dict[np.dtype[Any], int] = dict.fromkeys(_LOSS, 0)
    for x in leaves:
        if x.size >= _PACK or x.dtype not in sizes:
            yield x
            continue
        packs.setdefault(x.dtype, []).append(x.reshape(-1))
        sizes[x.dtype] += x.size
        if sizes[x.dtype] >= _PACKED:
            yield np.concatenate(packs.pop(x.dtype))
            sizes[x.dtype] = 0
    for pack in packs.values():
        yield pack[0] if len(pack) == 1 else np.concatenate(pack)


def _plain(total: float, leaves: Sequence[NDArray]) -> NormPartial:
    dtype = np.float64 if any(ns.is_double(x.dtype) for x in leaves) else np.float32
    return NormPartial(np.float64(1.0), np.float64(total), 2.0, dtype)


def _is_identity(c: Coefficient) -> bool:
    return c.changed.ndim == 0 and not c.changed


def plain_factor(x: Array, c: Coefficient) -> float | None:
    """Return the coefficient as one number, 1.0 for no change; None if the leaf's own precision cannot hold it."""
    if c.factor.ndim or (c.zeroed is not None and c.zeroed):
        return None
    if not c.changed:
        return 1.0
    factor = float(c.factor) / float(c.divisor)
    least = 2.0**-1022 if ns.is_double(x.dtype) else 2.0**-126
    return factor if least <= factor <= 1.0 / least else None


def _multiply_(x: NDArray, factor: float) -> None:
    if x.dtype in _LOSS:
        np.multiply(x, x.dtype.type(factor), out=x)
        return
    for part in (x.real, x.imag) if x.dtype.kind == "c" else (x,):
        if part.dtype in _LOSS:
            np.multiply(part, part.dtype.type(factor), out=part)
            continue
        for chunk in _chunks(in_byte_order(part)):
            chunk[...] = chunk.astype(np.float32) * np.float32(factor)
