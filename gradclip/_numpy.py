"""``Ops`` for NumPy: one read for the norm at the speed of memory, one write only where something is clipped.

Where a sum of squares cannot be trusted (see ``_squares``), the leaves are read again the slow way, which is right at
any magnitude.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradclip import _namespace as ns
from gradclip._coefficient import Coefficient
from gradclip._memory import in_byte_order
from gradclip._ops import ArrayOps, limited
from gradclip._partial import NormPartial
from gradclip._squares import LOSS, NDArray, Squares, pieces, sum_of_plain
from gradclip._threads import SHARED, cut, share, threads
from gradclip._types import Array, Scalar

_LARGE = 1 << 20
"""Bytes of a leaf from which on it may wait, to be multiplied by several threads."""


class NumpyOps(ArrayOps):
    """The operations of ``Ops`` for NumPy arrays; what is not here, or not ordinary, is ``ArrayOps``'."""

    def partial(self, leaves: Sequence[NDArray], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end."""
        if ord == 2:
            total = sum_of_plain(leaves)
            if total is not None:
                return _plain(total, leaves)
            squares = Squares(threads())
            squares.add_all(leaves)
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
        last, dtype, factor, number = None, None, None, None  # mostly one coefficient for all leaves, and one dtype
        large: list[tuple[NDArray, Any]] = []
        # The last leaves first: their norm was read last, so they are still in the cache.
        for x, c in reversed(list(zip(leaves, coefficients, strict=True))):
            if c is not last or x.dtype is not dtype:
                last, dtype, factor = c, x.dtype, plain_factor(x, c)
                number = dtype.type(factor) if dtype in LOSS and factor not in (None, 1.0) else None
            if number is not None and x.nbytes >= _LARGE and x.flags.c_contiguous:
                large.append((x.reshape(-1), number))
            elif number is not None:
                np.multiply(x, number, x)
            elif factor is None:
                super().scale_([x], [c])
            elif factor != 1.0:
                _multiply_(x, factor)
        if large:
            _multiply_large_(large)

    def clamp(self, leaves: Sequence[NDArray], low: Scalar, high: Scalar) -> list[NDArray]:
        """Return each leaf with its elements moved into the bounds."""
        bounds = self._bounds(leaves, low, high)
        return [np.clip(x, *bounds[x.dtype], out=np.empty_like(x, subok=False)) for x in leaves]

    def clamp_(self, leaves: Sequence[NDArray], low: Scalar, high: Scalar) -> None:
        """Move each leaf's elements into the bounds in place."""
        bounds = self._bounds(leaves, low, high)
        for x in leaves:
            np.clip(x, *bounds[x.dtype], out=x)

    def _bounds(self, leaves: Sequence[NDArray], low: Scalar, high: Scalar) -> dict[np.dtype[Any], Any]:
        return {
            dtype: [np.asarray(limited(float(bound), dtype)).astype(dtype) for bound in (low, high)]
            for dtype in {x.dtype for x in leaves}
        }

    def _scaled(self, x: NDArray, c: Coefficient) -> NDArray:
        factor = plain_factor(x, c)
        if factor is None:
            scaled: NDArray = super().scale([x], [c])[0]
            return scaled
        if factor == 1.0:
            return x
        if x.dtype in LOSS:
            return np.asarray(np.multiply(x, x.dtype.type(factor)))
        out = np.array(x, copy=True)
        _multiply_(out, factor)
        return out


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


def _multiply_large_(pairs: Sequence[tuple[NDArray, Any]]) -> None:
    """Multiply 1-D arrays in place, each by its number; on several threads, if they are many megabytes."""

    def work(begin: int, end: int) -> None:
        for i, low, high in cut(lengths, begin, end):
            x, number = pairs[i]
            np.multiply(x[low:high], number, x[low:high])

    lengths = [x.size for x, _ in pairs]
    share(work, sum(lengths), threads() if sum([x.nbytes for x, _ in pairs]) >= SHARED else 1)


def _multiply_(x: NDArray, factor: float) -> None:
    if x.dtype in LOSS:
        np.multiply(x, x.dtype.type(factor), out=x)
        return
    for part in (x.real, x.imag) if x.dtype.kind == "c" else (x,):
        if part.dtype in LOSS:
            np.multiply(part, part.dtype.type(factor), out=part)
            continue
        wide = ns.norm_dtype(np, part)
        for chunk in pieces(in_byte_order(part)):
            chunk[...] = chunk.astype(wide) * wide(factor)
