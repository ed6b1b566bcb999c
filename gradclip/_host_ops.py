"""``Ops`` for arrays in the host's memory: the kernels in C read and write them in place.

The leaves are read once for the norm, and written once only if something is clipped. The norm and the coefficient are
Python floats. Other operations do what the kernels cannot (see `gradclip._host_memory.Memory.runs`), and everything if
there are no kernels.
"""

import math
from collections.abc import Sequence

import numpy as np

from gradclip import _dtypes, _native
from gradclip._array_ops import ArrayOps, limited
from gradclip._coefficient import Coefficient, is_shared
from gradclip._decision import Decision, Rule, decide_by_arrays, decide_by_floats
from gradclip._host_memory import Memory, Runs
from gradclip._host_rows import RowCoefficients
from gradclip._host_sums import has_float64, has_order, sum_of, sums_of
from gradclip._native import Kernels, Table
from gradclip._ops import HostPartial, OfArrays, ToCoefficient
from gradclip._partial import NormPartial
from gradclip._types import AnyArray as Array
from gradclip._types import AnyScalar as Scalar
from gradclip._types import Axes

_NOTHING = math.inf, 0.0, 1.0
"""The numbers of a rule that changes nothing; they are used if there are no leaves."""


class HostOps(OfArrays):
    """The operations of ``Ops`` for arrays in the host's memory. One is made for each call.

    Parameters
    ----------
    rest : ArrayOps
        The operations for what the kernels cannot do.
    memory : Memory
        What the framework says of its arrays.
    leaves, runs : sequence of arrays and Runs, optional
        Where these leaves are, if that is known already.
    """

    readable = True
    __slots__ = ("_found", "_kernels", "_leaves", "_memory", "_rest")

    def __init__(
        self, rest: ArrayOps, memory: Memory, leaves: Sequence[Array] | None = None, runs: Runs | None = None
    ) -> None:
        self._rest, self._memory, self._kernels = rest, memory, _native.kernels()
        self._leaves, self._found = leaves, runs

    def decide(self, leaves: Sequence[Array], rule: Rule) -> Decision:
        """Return the norm of all leaves laid end to end, and what they are to be multiplied by."""
        numbers = rule.floats() if leaves else _NOTHING
        found = None if numbers is None else self._floats(leaves, rule.ord)
        if numbers is None or found is None:
            return decide_by_arrays(self.partial(leaves, rule.ord), rule)
        scale, total, double = found
        norm, c = decide_by_floats(scale, total, rule.ord, numbers, zero=rule.zero)
        return Decision(self._memory.numbers(norm, double), c, total)

    def read(self, leaves: Sequence[Array], ord: float) -> HostPartial | None:
        """Return the partial norm of all leaves laid end to end as floats; None if they are traced."""
        found = self._floats(leaves, ord)
        if found is None:
            return None
        scale, total, double = found
        return HostPartial(scale, total, lambda norm: self._memory.numbers(norm, double))

    def partial(self, leaves: Sequence[Array], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end."""
        leaves = self._memory.joined(leaves)
        if self._where(leaves) is None:
            return self._rest.partial(leaves, ord)
        return self._partial(*self._sum(leaves, ord), ord)

    def partials(self, leaves: Sequence[Array], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        runs = self._runs(leaves, ord)
        if runs is None:
            return self._rest.partials(leaves, ord)
        scales, totals = sums_of(self._c, runs.table, ord, self._memory.threads())
        double = has_float64(runs.table)
        for i in runs.others:
            partial = self._rest.partials([leaves[i]], ord)
            scales = np.insert(scales, i, float(partial.scale[0]))
            totals = np.insert(totals, i, float(partial.total[0]))
            double = double or _dtypes.is_double(leaves[i].dtype)
        scale, total = self._memory.own(scales), self._memory.own(totals)
        return NormPartial(scale, total, ord, self._memory.dtype(double))

    def partial_along(self, leaf: Array, ord: float, axes: Axes) -> NormPartial:
        """Return the partial norms of one leaf's slices. The kernels read slices that lie one after the other."""
        (count,) = self._rows([leaf], [axes]) if has_order(ord, _dtypes.is_complex(leaf.dtype)) else (-1,)
        if count < 0:
            return self._rest.partial_along(leaf, ord, axes)
        shape = unit_shape(leaf.shape, axes)
        partial = self._partial_of_rows([leaf], ord, [count])
        scale, total = (self._memory.own(x.reshape(shape)) for x in (partial.scale, partial.total))
        return NormPartial(scale, total, ord, self._memory.dtype(_dtypes.is_double(leaf.dtype)))

    def coefficients_along(
        self, function: ToCoefficient, columns: Sequence[Sequence[Array]], axes: Sequence[Axes], *numbers: Scalar
    ) -> Sequence[Coefficient]:
        """Return the coefficients of slices, for each position. Slices that are rows are measured in one call."""
        counts = [-1] * len(axes)
        if all(isinstance(y, float) for y in numbers):
            counts = list(map(min, zip(*(self._rows(arrays, axes) for arrays in columns), strict=True)))
        rest = [i for i, count in enumerate(counts) if count < 0]
        of_rest = super().coefficients_along(
            function, [[arrays[i] for i in rest] for arrays in columns], [axes[i] for i in rest], *numbers
        )
        if len(rest) == len(axes):
            return of_rest
        which = [i for i, count in enumerate(counts) if count >= 0]
        some = [counts[i] for i in which]
        parts = [self._partial_of_rows([arrays[i] for i in which], 2.0, some) for arrays in columns]
        shapes = [unit_shape(x.shape, along) for x, along in zip(columns[0], axes, strict=True)]
        others = dict(zip(rest, of_rest, strict=True))
        return RowCoefficients(function(parts, *numbers), counts, shapes, others, self._memory.own)

    def scale(self, leaves: Sequence[Array], coefficients: Sequence[Coefficient]) -> list[Array]:
        """Return each leaf times its coefficient, or the leaf itself if that does not change it."""
        out = list(leaves)
        positions: Sequence[int] = range(len(leaves))
        if isinstance(coefficients, RowCoefficients) and self._memory.is_plain(leaves):
            for i in coefficients.changing():
                out[i] = self._memory.like(leaves[i])
                out[i][...] = leaves[i]
            self._multiply_rows(out, coefficients)
            positions = list(coefficients.others)
        for which, some, each in _changing([leaves[i] for i in positions], [coefficients[i] for i in positions]):
            new = [self._memory.like(x) for x in some]
            for i in self._multiply(some, each, new):
                (new[i],) = self._rest.scale([some[i]], [each[i]])
            for i, x in zip(which, new, strict=True):
                out[positions[i]] = x
        return out

    def scale_(self, leaves: Sequence[Array], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place, if that changes it."""
        if isinstance(coefficients, RowCoefficients):
            self._multiply_rows(leaves, coefficients)
            leaves = [leaves[i] for i in coefficients.others]
            coefficients = list(coefficients.others.values())
        for _, some, each in _changing(leaves, coefficients):
            if left := self._multiply(some, each, some):
                self._rest.scale_([some[i] for i in left], [each[i] for i in left])

    def scaled_sum(self, leaf: Array, coefficient: Coefficient) -> Array:
        """Return the sum over the leading axis of ``leaf`` times ``coefficient``."""
        return self._rest.scaled_sum(leaf, coefficient)

    def clamp(self, leaves: Sequence[Array], low: Scalar, high: Scalar) -> list[Array]:
        """Return each leaf with its elements moved into the bounds."""
        new = [self._memory.like(x) for x in leaves]
        for i in self._bound(leaves, low, high, new):
            (new[i],) = self._rest.clamp([leaves[i]], low, high)
        return new

    def clamp_(self, leaves: Sequence[Array], low: Scalar, high: Scalar) -> None:
        """Move each leaf's elements into the bounds in place."""
        if left := self._bound(leaves, low, high, leaves):
            self._rest.clamp_([leaves[i] for i in left], low, high)

    def apart(self, leaves: Sequence[Array]) -> bool:
        """Whether it is known that no two elements of leaves share memory."""
        runs = self._runs(leaves)
        return runs is not None and not runs.others and self._c.apart(runs.table)

    def _rows(self, leaves: Sequence[Array], axes: Sequence[Axes]) -> list[int]:
        """Return how many slices each leaf has, if they lie one after the other in memory; else -1."""
        counts = [-1] * len(leaves)
        runs = self._runs(leaves) if self._memory.holds(leaves) else None
        for i in runs.which if runs is not None else ():
            x, kept = leaves[i], leaves[i].ndim - len(axes[i])
            if axes[i] == tuple(range(kept, x.ndim)) and self._memory.leads(x, kept):
                counts[i] = math.prod(x.shape[:kept])
        return counts

    def _partial_of_rows(self, leaves: Sequence[Array], ord: float, counts: Sequence[int]) -> NormPartial:
        """Return the partial norms of all slices of leaves for which `_rows` gave these counts, as NumPy arrays."""
        runs = self._runs(leaves)
        assert runs is not None
        table = runs.table.cut(counts)
        scales, totals = sums_of(self._c, table, ord, self._memory.threads())
        return NormPartial(scales, totals, ord, np.float64 if has_float64(table) else np.float32)

    def _floats(self, leaves: Sequence[Array], ord: float) -> tuple[float, float, bool] | None:
        """Return scale and total of the partial norm of all leaves, and whether it is float64; None if traced."""
        leaves = self._memory.joined(leaves)
        return None if self._where(leaves) is None else self._sum(leaves, ord)

    @property
    def _c(self) -> Kernels:
        """The kernels, where there are some."""
        assert self._kernels is not None
        return self._kernels

    def _where(self, leaves: Sequence[Array]) -> Runs | None:
        """Return where leaves are, or None if they have no addresses because they are traced."""
        if leaves is not self._leaves:
            self._leaves, self._found = leaves, self._memory.runs(leaves)
        return self._found

    def _runs(self, leaves: Sequence[Array], ord: float = 2.0) -> Runs | None:
        """Return where leaves are, or None if there are no kernels, or none for this order of norms."""
        found = self._where(leaves) if self._kernels else None
        return found if found is not None and has_order(ord, found.is_complex) else None

    def _sum(self, leaves: Sequence[Array], ord: float) -> tuple[float, float, bool]:
        """Return the two numbers of the partial norm of all leaves, and whether their norm is float64."""
        if not leaves:
            return 1.0, 0.0, False
        runs = self._runs(leaves, ord)
        if runs is None or not runs.which:
            partial = self._rest.partial(leaves, ord)
            return float(partial.scale), float(partial.total), _dtypes.is_double(partial.dtype)
        scale, total = sum_of(self._c, runs.table, ord, self._memory.threads())
        if not runs.others:
            return scale, total, has_float64(runs.table)
        here = self._partial(scale, total, has_float64(runs.table), ord)
        partial = here.merge(self._rest.partial([leaves[i] for i in runs.others], ord))
        return float(partial.scale), float(partial.total), _dtypes.is_double(partial.dtype)

    def _partial(self, scale: float, total: float, double: bool, ord: float) -> NormPartial:
        scale, total = (self._memory.numbers(x, True) for x in (scale, total))
        return NormPartial(scale, total, ord, self._memory.dtype(double))

    def _multiply(
        self, leaves: Sequence[Array], coefficients: Sequence[Coefficient], out: Sequence[Array]
    ) -> Sequence[int]:
        """Write leaves times their coefficients to ``out``, and return the positions of those the kernels cannot do.

        The coefficients are of one kind: all are arrays, all make their leaves zero, or none does either.
        """
        runs = self._runs(leaves)
        if runs is None or not (out is leaves or self._memory.is_plain(leaves)):
            return range(len(leaves))
        if not isinstance(coefficients[0].factor, float):
            return range(len(leaves))
        target = self._target(leaves, runs, out)
        if coefficients[0].zeroed:
            self._c.clear_(target, self._memory.threads())
        elif runs.which:
            which = runs.which[:1] if is_shared(coefficients) else runs.which
            pairs = [coefficients[i].multipliers for i in which]
            one, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            self._c.scale(runs.table, one, other, self._memory.threads(), target)
        return runs.others

    def _multiply_rows(self, leaves: Sequence[Array], coefficients: RowCoefficients) -> None:
        """Multiply the rows that change by their coefficients in place."""
        which = coefficients.changing()
        if not which:
            return
        those, rows = [leaves[i] for i in which], coefficients.of(which)
        runs = self._runs(those)
        assert runs is not None
        assert not runs.others
        table, (first, second) = runs.table.cut([coefficients.counts[i] for i in which]), rows.multipliers
        if not np.all(rows.changed):
            table, first, second = table.rows(rows.changed), first[rows.changed], second[rows.changed]
        self._memory.written(those)
        self._c.scale(table, first, second, self._memory.threads(), table)

    def _bound(self, leaves: Sequence[Array], low: Scalar, high: Scalar, out: Sequence[Array]) -> Sequence[int]:
        """Write leaves, moved into bounds, to ``out``; return the positions of those that the kernels cannot do."""
        runs = self._runs(leaves)
        numbers = isinstance(low, float) and isinstance(high, float)
        if runs is None or not numbers or not self._memory.is_plain(leaves):
            return range(len(leaves))
        dtypes = [leaves[i].dtype for i in runs.which]
        bounds = {dtype: (limited(low, dtype), limited(high, dtype)) for dtype in set(dtypes)}
        if dtypes:
            lows, highs = zip(*(bounds[dtype] for dtype in dtypes), strict=True)
            target = self._target(leaves, runs, out)
            self._c.clamp(runs.table, lows, highs, self._memory.threads(), target)
        return runs.others

    def _target(self, leaves: Sequence[Array], runs: Runs, out: Sequence[Array]) -> Table:
        """Return the table of what is written: the leaves, or new arrays with the same order of axes."""
        if out is not leaves:
            new = self._memory.runs([out[i] for i in runs.which])
            assert new is not None
            return new.table
        self._memory.written([leaves[i] for i in runs.which] if runs.others else leaves)
        return runs.table


def _changing(
    leaves: Sequence[Array], coefficients: Sequence[Coefficient]
) -> list[tuple[Sequence[int], Sequence[Array], Sequence[Coefficient]]]:
    """Return the leaves that change, in groups whose coefficients are of one kind: positions, leaves, coefficients.

    Coefficients are floats where their values may be read; a value is read once.
    """
    if not coefficients:
        return []
    if is_shared(coefficients):
        c = coefficients[0].floats() or coefficients[0]
        return [(range(len(leaves)), leaves, [c] * len(leaves))] if _may_change(c) else []
    numbers = [c.floats() or c for c in coefficients]
    groups: dict[str, list[int]] = {}
    for i, c in enumerate(numbers):
        if _may_change(c):
            kind = "array" if not isinstance(c.factor, float) else "zero" if c.zeroed else "product"
            groups.setdefault(kind, []).append(i)
    return [(which, [leaves[i] for i in which], [numbers[i] for i in which]) for which in groups.values()]


def unit_shape(shape: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
    """Return the shape of one number for each unit, which broadcasts with the leaf."""
    return tuple(1 if axis in axes else n for axis, n in enumerate(shape))


def _may_change(c: Coefficient) -> bool:
    return not isinstance(c.factor, float) or bool(c.changed)
