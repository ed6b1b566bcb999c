"""``Ops`` for NumPy: by the kernels in C where they were built, else by NumPy's own functions, some at a time.

One read for the norm, and one write only where something is clipped.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradclip import _namespace as ns
from gradclip import _native
from gradclip._coefficient import Coefficient
from gradclip._ops import ArrayOps, limited
from gradclip._partial import NormPartial, merge_elements
from gradclip._tables import NDArray, partial_of, tables_of
from gradclip._types import Scalar


class NumpyOps(ArrayOps):
    """The operations of ``Ops`` for NumPy arrays; what is not here, or not for kernels, is ``ArrayOps``'."""

    def partial(self, leaves: Sequence[NDArray], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end, as NumPy's scalars."""
        kernels = _native.kernels()
        tables, others = tables_of(leaves, ord) if kernels else ([], leaves)
        if not kernels or not tables:
            return merge_elements(super().partials(leaves, ord))
        partial = partial_of(kernels, tables, ord, _native.threads(), norm_dtype(leaves))
        return partial.merge(merge_elements(super().partials(others, ord))) if others else partial

    def partials(self, leaves: Sequence[NDArray], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        if not _native.kernels():
            return super().partials(leaves, ord)
        scales, totals = np.ones(len(leaves)), np.empty(len(leaves))
        for i, x in enumerate(leaves):
            partial = self.partial([x], ord)
            scales[i], totals[i] = partial.scale, partial.total
        return NormPartial(scales, totals, ord, norm_dtype(leaves))

    def scale(self, leaves: Sequence[NDArray], coefficients: Sequence[Coefficient]) -> list[NDArray]:
        """Return each leaf times its coefficient; the same leaf where that changes nothing."""
        changed = [i for i, c in enumerate(coefficients) if bool(np.any(c.changed))]
        out = list(leaves)
        for i in changed:
            out[i] = np.array(leaves[i], copy=True, subok=False)
        self.scale_([out[i] for i in changed], [coefficients[i] for i in changed])
        return out

    def scale_(self, leaves: Sequence[NDArray], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place, if that changes anything."""
        kernels = _native.kernels()
        groups: dict[int, tuple[Coefficient, list[NDArray]]] = {}  # mostly one coefficient for all leaves
        for x, c in zip(leaves, coefficients, strict=True):
            groups.setdefault(id(c), (c, []))[1].append(x)
        for c, group in groups.values():
            numbers = multipliers(c)
            if numbers == (1.0, 1.0):
                continue
            tables, others = tables_of(group) if kernels and numbers else ([], group)
            for table in tables:
                assert kernels  # else there were no tables
                assert numbers
                kernels.scale_(table, *numbers, _native.threads())
            if others:
                super().scale_(others, [c] * len(others))

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


def norm_dtype(leaves: Sequence[NDArray]) -> type[np.float32 | np.float64]:
    """Return the dtype of the norm of leaves."""
    return np.float64 if any(ns.is_double(dtype) for dtype in {x.dtype for x in leaves}) else np.float32


def multipliers(c: Coefficient) -> tuple[float, float] | None:
    """Return the two numbers by which whole leaves are multiplied; None if there are more, or leaves become zero."""
    if c.factor.ndim or (c.zeroed is not None and c.zeroed):
        return None
    first, second = c.multipliers
    return (float(first), float(second)) if c.changed else (1.0, 1.0)
