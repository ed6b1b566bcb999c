"""``Ops`` for arrays in the host's memory: the kernels in C read and write them where they lie.

One read for the norm, and one write only where something is clipped. The norm and the coefficient are Python's floats.
What the kernels cannot read (see `Memory.runs`) is done by other operations, and so is everything where there are none.
"""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Protocol

from gradclip import _dtypes, _native
from gradclip import _namespace as ns
from gradclip._array_ops import ArrayOps, limited
from gradclip._coefficient import Coefficient, root_of_float
from gradclip._decision import Decision, Rule, decide_by_arrays, decide_by_floats
from gradclip._native import Kernels, Table
from gradclip._partial import NormPartial
from gradclip._types import AnyArray as Array
from gradclip._types import AnyScalar as Scalar
from gradclip._types import Axes

_LEAST, _PART = 2.0**-1022, 2.0**-58
"""(smallest normal number, relative error we accept): a sum of n squares is trusted if n · first ≤ second · sum."""

_FURTHEST = 1021
"""The largest exponent of a power of two whose reciprocal is a normal number too."""

_NOTHING = math.inf, 0.0, 1.0
"""The numbers of a rule that changes nothing, for no leaves."""

_FLOAT64 = bytes([_native.CODES["float64"]])


class Runs:
    """Where leaves lie in memory.

    Parameters
    ----------
    table : Table
        Those that the kernels can read: one run of memory each, in any order of axes.
    which : sequence of int
        Which leaves are in the table, in order, and ``others`` those that are not.
    is_complex : bool
        Whether one of them is complex: of such the kernels have only the sum of squares.
    """

    __slots__ = ("is_complex", "others", "table", "which")

    def __init__(
        self, table: Table, which: Sequence[int], others: Sequence[int] = (), is_complex: bool = False
    ) -> None:
        self.table, self.which, self.others, self.is_complex = table, which, others, is_complex


def runs_of(places: Iterable[tuple[int, int, tuple[int, bool]] | None]) -> Runs:
    """Return the runs of leaves, given for each its address, bytes and dtype (see `code_of`); None if it has none."""
    which, others, addresses, nbytes, codes = [], [], [], [], bytearray()
    is_complex = False
    for i, place in enumerate(places):
        if place is None:
            others.append(i)
            continue
        address, size, (code, is_pair) = place
        which.append(i)
        addresses.append(address)
        nbytes.append(size)
        codes.append(code)
        is_complex |= is_pair
    return Runs(Table(addresses, nbytes, bytes(codes)), which, others, is_complex)


class Memory(Protocol):
    """What there is to know of a framework's arrays in the host's memory."""

    def runs(self, leaves: Sequence[Array]) -> Runs | None:
        """Return where leaves lie, None if that cannot be known: they are traced."""
        ...

    def joined(self, leaves: Sequence[Array]) -> Sequence[Array]:
        """Return arrays to read in the place of leaves, where that takes less time; of no leaves, none."""
        ...

    def threads(self) -> int:
        """Return how many threads may work."""
        ...

    def numbers(self, values: Any, double: bool) -> Array:
        """Return a number, or numbers, as an array of float64 or float32."""
        ...

    def dtype(self, double: bool) -> Array:
        """Return the dtype of such an array."""
        ...

    def like(self, leaf: Array) -> Array:
        """Return a new array of the shape, dtype and strides of a leaf."""
        ...

    def in_order(self, leaf: Array) -> bool:
        """Whether the elements of a leaf lie one after the other in the order of its axes, the last one first."""
        ...

    def is_plain(self, leaves: Sequence[Array]) -> bool:
        """Whether the elements of leaves are what lies in memory, neither negated nor conjugated."""
        ...

    def written(self, leaves: Sequence[Array]) -> None:
        """Take note that leaves were written to through their addresses."""
        ...


class HostOps:
    """The operations of ``Ops`` for arrays in the host's memory. Made for one call: it knows where the leaves lie.

    Parameters
    ----------
    rest : ArrayOps
        The operations for what the kernels cannot do.
    memory : Memory
        What there is to know of the framework's arrays.
    leaves, runs : sequence of arrays and Runs, optional
        Where these leaves lie, if that is known already.
    """

    __slots__ = ("_found", "_kernels", "_leaves", "_memory", "_rest")

    def __init__(
        self, rest: ArrayOps, memory: Memory, leaves: Sequence[Array] | None = None, runs: Runs | None = None
    ) -> None:
        self._rest, self._memory, self._kernels = rest, memory, _native.kernels()
        self._leaves, self._found = leaves, runs

    def decide(self, leaves: Sequence[Array], rule: Rule) -> Decision:
        """Return the norm of all leaves laid end to end, and what they are to be multiplied by."""
        numbers = rule.floats() if leaves else _NOTHING
        leaves = self._memory.joined(leaves)
        if numbers is None or self._where(leaves) is None:
            return decide_by_arrays(self.partial(leaves, rule.ord), rule)
        scale, total, double = self._sum(leaves, rule.ord)
        norm, c = decide_by_floats(scale, total, rule.ord, numbers, zero=rule.zero)
        return Decision(self._memory.numbers(norm, double), c, total)

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
        scales, totals = self._each(runs.table, ord)
        for i in runs.others:
            partial = self._rest.partials([leaves[i]], ord)
            scales.insert(i, float(partial.scale[0]))
            totals.insert(i, float(partial.total[0]))
        scale, total = (self._memory.numbers(values, True) for values in (scales, totals))
        return NormPartial(scale, total, ord, self._memory.dtype(any(_dtypes.is_double(x.dtype) for x in leaves)))

    def partial_along(self, leaf: Array, ord: float, axes: Axes) -> NormPartial:
        """Return the partial norms of one leaf's slices; one slice after the other in memory, the kernels read them."""
        kept = leaf.ndim - len(axes)
        table = self._slices(leaf, kept) if axes == tuple(range(kept, leaf.ndim)) else None
        if table is None or not _has_order(ord, _dtypes.is_complex(leaf.dtype)):
            return self._rest.partial_along(leaf, ord, axes)
        shape = (*leaf.shape[:kept], *[1] * len(axes))
        scale, total = (self._memory.numbers(values, True).reshape(shape) for values in self._each(table, ord))
        return NormPartial(scale, total, ord, self._memory.dtype(_dtypes.is_double(leaf.dtype)))

    def scale(self, leaves: Sequence[Array], coefficients: Sequence[Coefficient]) -> list[Array]:
        """Return each leaf times its coefficient; the same leaf where that changes nothing."""
        out = list(leaves)
        for c, which, some in _changing(leaves, coefficients):
            new = [self._memory.like(x) for x in some]
            for i in self._multiply(some, c, new):
                (new[i],) = self._rest.scale([some[i]], [c])
            for i, x in zip(which, new, strict=True):
                out[i] = x
        return out

    def scale_(self, leaves: Sequence[Array], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place, if that changes anything."""
        for c, _, some in _changing(leaves, coefficients):
            if left := self._multiply(some, c, some):
                self._rest.scale_([some[i] for i in left], [c] * len(left))

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

    @property
    def _c(self) -> Kernels:
        """The kernels, where there are some."""
        assert self._kernels is not None
        return self._kernels

    def _where(self, leaves: Sequence[Array]) -> Runs | None:
        """Return where leaves lie, or None if that cannot be known: they are traced."""
        if leaves is not self._leaves:
            self._leaves, self._found = leaves, self._memory.runs(leaves)
        return self._found

    def _runs(self, leaves: Sequence[Array], ord: float = 2.0) -> Runs | None:
        """Return where leaves lie, or None if there are no kernels, or none for an order of norms."""
        found = self._where(leaves) if self._kernels else None
        return found if found is not None and _has_order(ord, found.is_complex) else None

    def _sum(self, leaves: Sequence[Array], ord: float) -> tuple[float, float, bool]:
        """Return the two numbers of the partial norm of all leaves, and whether their norm is float64."""
        if not leaves:
            return 1.0, 0.0, False
        runs = self._runs(leaves, ord)
        if runs is not None and not runs.others:
            return *self._pair(runs.table, ord), _FLOAT64 in runs.table.codes
        if runs is None or not runs.which:
            partial = self._rest.partial(leaves, ord)
        else:
            here = self._partial(*self._pair(runs.table, ord), _FLOAT64 in runs.table.codes, ord)
            partial = here.merge(self._rest.partial([leaves[i] for i in runs.others], ord))
        return float(partial.scale), float(partial.total), _dtypes.is_double(partial.dtype)

    def _partial(self, scale: float, total: float, double: bool, ord: float) -> NormPartial:
        scale, total = (self._memory.numbers(x, True) for x in (scale, total))
        return NormPartial(scale, total, ord, self._memory.dtype(double))

    def _pair(self, table: Table, ord: float) -> tuple[float, float]:
        """Return scale and total of all arrays: by one read, or by three where float64 does not hold the powers."""
        total = self._c.sum(table, ord, self._memory.threads())
        if _FLOAT64 not in table.codes:
            return 1.0, total
        if _is_trusted(total, ord, sum(table.nbytes)):
            return _balanced(total, ord)
        peak = self._c.sum(table, math.inf, self._memory.threads())
        if not 0 < peak < math.inf:  # NaN and inf stay what they are
            return 1.0, peak
        scale = _power_of_two_near(peak)
        return scale, self._c.sum(table, ord, self._memory.threads(), 1.0 / scale)

    def _each(self, table: Table, ord: float) -> tuple[list[float], list[float]]:
        """Return the scale and the total of each array."""
        totals = self._c.sums(table, ord, self._memory.threads())
        scales = [1.0] * len(totals)
        if _FLOAT64 in table.codes:
            for i, (total, nbytes) in enumerate(zip(totals, table.nbytes, strict=True)):
                trusted = _is_trusted(total, ord, nbytes)
                scales[i], totals[i] = _balanced(total, ord) if trusted else self._pair(table.rows([i]), ord)
        return scales, totals

    def _slices(self, leaf: Array, kept: int) -> Table | None:
        """Return the table of a leaf's slices along its first axes, or None if it is not one run in that order."""
        runs = self._runs([leaf])
        if runs is None or runs.others or not self._memory.in_order(leaf):
            return None
        return runs.table.cut(math.prod(leaf.shape[:kept]))

    def _multiply(self, leaves: Sequence[Array], c: Coefficient, out: Sequence[Array]) -> Sequence[int]:
        """Write leaves times a coefficient to ``out``, and return which ones the kernels cannot do."""
        runs = self._runs(leaves)
        if runs is None or not (out is leaves or self._memory.is_plain(leaves)):
            return range(len(leaves))
        number = c.floats()
        if number is None:
            return [i for i, x in enumerate(leaves) if not self._multiply_slices(x, c, out[i])]
        target = self._target(leaves, runs, out)
        if number.zeroed:
            self._c.clear_(target, self._memory.threads())
        else:
            first, second = number.multipliers
            self._c.scale(runs.table, (first,), (second,), self._memory.threads(), target)
        return runs.others

    def _multiply_slices(self, leaf: Array, c: Coefficient, out: Array) -> bool:
        """Write a leaf's slices, each times a coefficient, to ``out``; return whether the kernels can do that."""
        kept = max((axis + 1 for axis, n in enumerate(c.factor.shape) if n > 1), default=0)
        leading = c.factor.shape[:kept] == leaf.shape[:kept] and c.zeroed is None and not ns.is_whole(c.factor)
        table = self._slices(leaf, kept) if leading else None
        if table is None:
            return False
        if out is not leaf:
            out[...] = leaf
            return self._multiply_slices(out, c, out)
        which = [i for i, changes in enumerate(_listed(c.changed)) if changes]
        first, second = ([values[i] for i in which] for values in map(_listed, c.multipliers))
        if which:
            rows = table.rows(which)
            self._c.scale(rows, first, second, self._memory.threads(), rows)
            self._memory.written([out])
        return True

    def _bound(self, leaves: Sequence[Array], low: Scalar, high: Scalar, out: Sequence[Array]) -> Sequence[int]:
        """Write leaves, moved into bounds, to ``out``, and return which ones the kernels cannot do."""
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
        """Return the table of what is written: of the leaves themselves, or of new arrays, which lie as they do."""
        if out is not leaves:
            new = self._memory.runs([out[i] for i in runs.which])
            assert new is not None
            return new.table
        self._memory.written([leaves[i] for i in runs.which] if runs.others else leaves)
        return runs.table


def _changing(
    leaves: Sequence[Array], coefficients: Sequence[Coefficient]
) -> Iterable[tuple[Coefficient, Sequence[int], Sequence[Array]]]:
    """Return each coefficient that changes leaves, with the positions of these and themselves; mostly there is one."""
    if coefficients and coefficients.count(coefficients[0]) == len(coefficients):
        groups: list[tuple[Coefficient, Sequence[int], Sequence[Array]]] = [
            (coefficients[0], range(len(leaves)), leaves)
        ]
    else:
        found: dict[int, tuple[Coefficient, list[int]]] = {}
        for i, c in enumerate(coefficients):
            found.setdefault(id(c), (c, []))[1].append(i)
        groups = [(c, which, [leaves[i] for i in which]) for c, which in found.values()]
    return [group for group in groups if (number := group[0].floats()) is None or number.changed]


def _listed(values: Array) -> list[Any]:
    listed: list[Any] = values.reshape(-1).tolist()
    return listed


@cache
def code_of(name: str) -> tuple[int, bool] | None:
    """Return what the kernels call the parts of a dtype, and whether it is complex; None if they cannot read it."""
    real = _dtypes.COMPONENTS.get(name)
    code = _native.CODES.get(real or name)
    return None if code is None else (code, real is not None)


def _has_order(ord: float, is_complex: bool) -> bool:
    return ord == 2 or (ord in _native.ORDERS and not is_complex)


def _balanced(total: float, ord: float) -> tuple[float, float]:
    """Return a scale near the norm, a power of two, and the total for it, so that no coefficient leaves float64."""
    norm = root_of_float(total, ord)
    if not 0 < norm < math.inf:
        return 1.0, total
    scale = _power_of_two_near(norm)
    return scale, total / scale / scale if ord == 2 else total / scale


def _power_of_two_near(number: float) -> float:
    """Return a power of two near a positive number, whose reciprocal is a normal number too."""
    return math.ldexp(1.0, max(-_FURTHEST, min(_FURTHEST, math.frexp(number)[1])))


def _is_trusted(total: float, ord: float, nbytes: int) -> bool:
    """Whether no power that matters of float64 numbers has left its range; those of narrower dtypes cannot."""
    return ord == math.inf or (math.isfinite(total) and (ord == 1 or nbytes / 8 * _LEAST <= _PART * total))
