"""``Ops`` for arrays of any namespace in the host's memory that support DLPack: NumPy's operations on views of them.

Leaves are read without a copy. Results are converted from NumPy arrays by the namespace's ``asarray``.
"""

import math
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from gradclip import _dtypes
from gradclip import _namespace as ns
from gradclip._array_ops import ArrayOps
from gradclip._coefficient import Coefficient
from gradclip._decision import Decision, Rule
from gradclip._memory import UNSUPPORTED, NDArray, numpy_views
from gradclip._numpy_ops import numpy_ops
from gradclip._ops import OfArrays
from gradclip._partial import NormPartial
from gradclip._types import AnyArray, AnyScalar, Axes, Namespace

_CPU = 1
"""DLPack's number for the host's memory."""

_FURTHEST = 125
"""The largest exponent of a scale: float32 represents its reciprocal, and a norm that is a few times as large."""


class DLPackOps(OfArrays):
    """The operations of ``Ops`` for arrays that have NumPy views; an object serves one call.

    Parameters
    ----------
    rest : ArrayOps
        The operations of the arrays' own namespace, for traced numbers and coefficients of units.
    leaves : sequence of arrays
        The arrays, all on one device.
    views : sequence of NumPy arrays
        Their views.
    """

    def __init__(self, rest: ArrayOps, leaves: Sequence[AnyArray], views: Sequence[NDArray]) -> None:
        self._rest, self._numpy, self._first = rest, numpy_ops(), leaves[0]
        self._views = {id(x): (x, view) for x, view in zip(leaves, views, strict=True)}

    def decide(self, leaves: Sequence[AnyArray], rule: Rule) -> Decision:
        """Return the norm of all leaves laid end to end and the coefficient."""
        if rule.floats() is None:
            return self._rest.decide(leaves, rule)
        decision = self._numpy.decide(self._seen(leaves), rule)
        return Decision(self._own(decision.norm, self._first), decision.coefficient, decision.total)

    def partial(self, leaves: Sequence[AnyArray], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end."""
        if not self._has_order(ord):
            return self._rest.partial(leaves, ord)
        return self._partial(self._numpy.partial(self._seen(leaves), ord))

    def partials(self, leaves: Sequence[AnyArray], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        if not self._has_order(ord):
            return self._rest.partials(leaves, ord)
        return self._partial(self._numpy.partials(self._seen(leaves), ord))

    def partial_along(self, leaf: AnyArray, ord: float, axes: Axes) -> NormPartial:
        """Return the partial norms of one leaf's slices."""
        if id(leaf) not in self._views or not self._has_order(ord):
            return self._rest.partial_along(leaf, ord, axes)
        return self._partial(self._numpy.partial_along(self._views[id(leaf)][1], ord, axes))

    def scale(self, leaves: Sequence[AnyArray], coefficients: Sequence[Coefficient]) -> list[AnyArray]:
        """Return each leaf times its coefficient; a leaf that does not change is returned itself."""
        numbers = _floats(coefficients)
        if numbers is None:
            return self._rest.scale(leaves, coefficients)
        views = self._seen(leaves)
        new = self._numpy.scale(views, numbers)
        return [x if y is view else self._own(y, x) for x, y, view in zip(leaves, new, views, strict=True)]

    def scale_(self, leaves: Sequence[AnyArray], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place. Leaves that do not change are not written."""
        numbers, views = _floats(coefficients), self._seen(leaves)
        if numbers is None or not ns.are_writable(views, set(map(type, views))):
            self._rest.scale_(leaves, coefficients)
        else:
            self._numpy.scale_(views, numbers)

    def scaled_sum(self, leaf: AnyArray, coefficient: Coefficient) -> AnyArray:
        """Return the sum over the leading axis of ``leaf`` times ``coefficient``."""
        return self._rest.scaled_sum(leaf, coefficient)

    def clamp(self, leaves: Sequence[AnyArray], low: AnyScalar, high: AnyScalar) -> list[AnyArray]:
        """Return each leaf with its elements limited to the bounds."""
        if not (isinstance(low, float) and isinstance(high, float)):
            return self._rest.clamp(leaves, low, high)
        new = self._numpy.clamp(self._seen(leaves), low, high)
        return [self._own(y, x) for x, y in zip(leaves, new, strict=True)]

    def clamp_(self, leaves: Sequence[AnyArray], low: AnyScalar, high: AnyScalar) -> None:
        """Limit each leaf's elements to the bounds in place."""
        views = self._seen(leaves)
        if isinstance(low, float) and isinstance(high, float) and ns.are_writable(views, set(map(type, views))):
            self._numpy.clamp_(views, low, high)
        else:
            self._rest.clamp_(leaves, low, high)

    def apart(self, leaves: Sequence[AnyArray]) -> bool:
        """Whether it is known that no two elements of leaves share memory."""
        return self._numpy.apart(self._seen(leaves))

    def _seen(self, leaves: Sequence[AnyArray]) -> list[NDArray]:
        return [self._views[id(x)][1] for x in leaves]

    def _has_order(self, ord: float) -> bool:
        """Whether the widest dtype of the namespace can represent the partial norm of this order."""
        return ord in (1, 2, math.inf) or _dtypes.is_double(ns.wide_dtype(self._rest.xp, self._first))

    def _partial(self, partial: NormPartial) -> NormPartial:
        """Return a partial norm of NumPy arrays as one of the namespace's arrays."""
        xp = self._rest.xp
        wide = ns.wide_dtype(xp, self._first)
        scale, total = (partial.scale, partial.total) if _dtypes.is_double(wide) else _narrowed(partial)
        scale, total = (self._own(np.asarray(x, _dtypes.dtype_name(wide)), self._first) for x in (scale, total))
        return NormPartial(scale, total, partial.ord, xp.float64 if _dtypes.is_double(partial.dtype) else xp.float32)

    def _own(self, x: NDArray, leaf: AnyArray) -> AnyArray:
        """Return a NumPy array as an array of the namespace, on the device of a leaf."""
        return self._rest.xp.asarray(x, device=ns.device(leaf))


def dlpack_ops(xp: Namespace, leaves: Sequence[AnyArray]) -> DLPackOps | None:
    """Return the operations for arrays of a namespace, None if they are not all on one device in the host's memory."""
    if ns.is_lazy(leaves[0]) or not hasattr(leaves[0], "__dlpack_device__"):
        return None
    views = [view for x in leaves if (view := _view(x)) is not None]
    if len(views) < len(leaves) or any(ns.device(x) != ns.device(leaves[0]) for x in leaves):
        return None
    return DLPackOps(ArrayOps(xp), leaves, views)


def _view(x: AnyArray) -> NDArray | None:
    """Return a NumPy array on the memory of an array, or None if there is none or it is not the host's."""
    with suppress(*UNSUPPORTED):
        if x.__dlpack_device__()[0] == _CPU:
            name = _dtypes.dtype_name(x.dtype)
            views = (v for v in numpy_views(x) if v.shape == tuple(x.shape) and _dtypes.dtype_name(v.dtype) == name)
            return next(views, None)
    return None


def _floats(coefficients: Sequence[Coefficient]) -> list[Coefficient] | None:
    """Return coefficients as floats, equal ones as one object; None if one is traced, or is not a single number."""
    found = {id(c): c.floats() for c in coefficients}
    numbers = [number for c in coefficients if (number := found[id(c)]) is not None]
    return numbers if len(numbers) == len(coefficients) else None


def _narrowed(partial: NormPartial) -> tuple[NDArray, NDArray]:
    """Return scale and total in float32's range: the scale is a power of two near the norm."""
    power = 1.0 if partial.ord == math.inf else partial.ord
    norm = partial.scale * partial.total ** (1 / power)
    exponent = np.where(np.isfinite(norm), np.frexp(norm)[1], 0)
    scale = np.ldexp(1.0, np.clip(exponent, -_FURTHEST, _FURTHEST))
    return scale, (norm / scale) ** power
