"""Conversion of containers of arrays to leaves, and back to the same container.

optree walks its built-in and registered nodes. It takes plain dataclasses for leaves: this module walks them.
"""

import copy
import dataclasses
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

import optree

from gradclip import _checks, _dtypes
from gradclip import _namespace as ns
from gradclip._array_ops import ArrayOps
from gradclip._coefficient import Coefficient
from gradclip._dask_ops import DaskOps
from gradclip._decision import Decision, Rule
from gradclip._dlpack_ops import dlpack_ops
from gradclip._memory import identities
from gradclip._mlx_ops import MlxOps
from gradclip._numpy_ops import numpy_ops
from gradclip._ops import Ops, ToCoefficient
from gradclip._partial import NormPartial
from gradclip._tensor_memory import tensor_ops
from gradclip._types import AnyArray, AnyScalar, Axes
from gradclip._weights import refuse_weights

_dtype = attrgetter("dtype")

_PLAIN = {list, tuple}
"""Containers that optree need not walk if all their items are arrays."""


@dataclass(frozen=True, slots=True)
class Leaves:
    """The distinct arrays of a container, their operations, and functions that rebuild the container.

    Parameters
    ----------
    arrays : list of arrays
        The distinct leaves, in order. A leaf that stands at two positions (tied parameters) is here once.
    ops : Ops
        The operations for them.
    slots : list of int
        For each position in the container, which of ``arrays`` belongs there.
    rebuild : callable
        Makes the container from one value for each position.
    paths : callable
        Gives each position a name, such as ``grads['layer'][0]``, for error messages.
    """

    arrays: list[AnyArray]
    ops: Ops
    slots: Sequence[int]
    rebuild: Callable[[list[Any]], Any]
    paths: Callable[[], list[str]]

    @property
    def is_spread(self) -> bool:
        """Whether other processes hold leaves of the same model, or parts of these; the core's leaves are all here."""
        return False

    def decide(self, rule: Rule) -> Decision:
        """Return the norm of all of ``arrays`` and the coefficient; nothing is written."""
        return self.ops.decide(self.arrays, rule)

    def partial(self, ord: float) -> NormPartial:
        """Return the partial norm of all of ``arrays``."""
        return self.ops.partial(self.arrays, ord)

    def partials(self, ord: float) -> NormPartial:
        """Return one partial norm for each of ``arrays``."""
        return self.ops.partials(self.arrays, ord)

    def coefficients_along(
        self, function: ToCoefficient, columns: Sequence[Sequence[AnyArray]], axes: Sequence[Axes], *numbers: AnyScalar
    ) -> Sequence[Coefficient]:
        """Return the coefficients of slices, as `Ops.coefficients_along` does."""
        return self.ops.coefficients_along(function, columns, axes, *numbers)

    def own_partial(self, ord: float) -> NormPartial:
        """Return the partial norm of what this process holds; an adapter whose leaves are spread overrides it."""
        return self.partial(ord)

    def nonfinite(self) -> list[tuple[str, str]]:
        """Return the path of each of ``arrays`` that has NaN or inf, and where it is, if not in this process."""
        totals = self.ops.partials(self.arrays, 2.0).total
        finite = ns.namespace([totals]).isfinite(totals)
        return [(path, "") for i, path in enumerate(self.array_paths()) if not bool(finite[i, ...])]

    def scale(self, coefficients: Sequence[Coefficient]) -> Any:
        """Return the container with each of ``arrays`` times its coefficient."""
        return self.restore(self.ops.scale(self.arrays, coefficients))

    def scale_(self, coefficients: Sequence[Coefficient], pure: str) -> None:
        """Multiply each of ``arrays`` by its coefficient in place. Errors name the ``pure`` function."""
        self.ops.scale_(self.targets(pure), coefficients)
        self.finish()

    def clamp(self, low: AnyScalar, high: AnyScalar) -> Any:
        """Return the container with the elements of ``arrays`` limited to the bounds."""
        return self.restore(self.ops.clamp(self.arrays, low, high))

    def clamp_(self, low: AnyScalar, high: AnyScalar) -> None:
        """Limit the elements of ``arrays`` to the bounds in place."""
        self.ops.clamp_(self.targets("clip_by_value"), low, high)
        self.finish()

    def targets(self, pure: str) -> list[AnyArray]:
        """Return the arrays to write to, one for each of ``arrays``. Errors name the ``pure`` function."""
        _checks.writable(self.arrays, self.array_paths, pure, self.ops.apart)
        return self.arrays

    def finish(self) -> None:
        """Run after ``arrays`` were written; adapters override it, the core does nothing."""

    def restore(self, values: Sequence[Any]) -> Any:
        """Return the container made of one value for each of ``arrays``."""
        return self.rebuild([values[slot] for slot in self.slots])

    @property
    def structure(self) -> object:
        """An object that is equal for containers with leaves at the same positions; None if it is not known."""
        return getattr(self.rebuild, "__self__", None)

    def array_paths(self) -> list[str]:
        """Return a name for each of ``arrays``: its first position."""
        return self.firsts(self.paths())

    def firsts(self, values: Sequence[Any]) -> list[Any]:
        """Return one value for each of ``arrays``, given one for each position."""
        return firsts(values, self.slots)


def flatten(container: object, name: str = "grads", *, distinct: bool = True, weights: bool = False) -> Leaves:
    """Return the checked leaves of a container.

    Parameters
    ----------
    container : array or container of arrays
        An array, or any nesting of list, tuple, NamedTuple, dict, dataclass and nodes registered with optree. None
        stays None.
    name : str
        The name of the container in error messages.
    distinct : bool
        Whether leaves that are the same array count once; otherwise there is one for each position.
    weights : bool
        Whether leaves may be parameters of PyTorch. They must not if gradients are expected.

    Raises
    ------
    TypeError
        If a leaf is not an array of floating-point numbers, if one holds weights and ``weights`` is False, or if leaves
        are of different namespaces.
    """
    found, rebuild = _walk(container)

    def paths() -> list[str]:
        return _paths(container, name)

    kinds: set[Any] = set(map(type, found))
    if not weights:
        refuse_weights(container, name, found, kinds, paths)
    _check(found, kinds, paths)
    slots = slots_of(identities(found, kinds)) if distinct else range(len(found))
    arrays = found if isinstance(slots, range) else firsts(found, slots)
    return Leaves(arrays, ops_for(arrays, found[:1] if len(kinds) == 1 else found), slots, rebuild, paths)


def slots_of(keys: Sequence[Hashable]) -> Sequence[int]:
    """Return the index of each key among the distinct keys; a range if all are distinct."""
    if len(set(keys)) == len(keys):
        return range(len(keys))
    first: dict[Hashable, int] = {}
    return [first.setdefault(key, len(first)) for key in keys]


def firsts(values: Sequence[Any], slots: Sequence[int]) -> list[Any]:
    """Return what stands at the first position of each slot."""
    found: dict[int, Any] = {}
    for slot, x in zip(slots, values, strict=True):
        found.setdefault(slot, x)
    return list(found.values())


def ops_for(arrays: Sequence[AnyArray], some: Sequence[AnyArray] = ()) -> Ops:
    """Return the operations for leaves of one namespace; ``some`` of them, if given, have all of their types."""
    if not arrays or ns.is_numpy(xp := ns.namespace(some or arrays)):
        return numpy_ops()
    if ns.is_mlx(xp):
        return MlxOps(xp, arrays)
    if ns.is_dask(xp):
        return DaskOps(xp)
    ops = tensor_ops(xp, arrays) if ns.is_torch(xp) else dlpack_ops(xp, arrays)
    return ops or ArrayOps(xp)


def _check(found: Sequence[AnyArray], kinds: set[Any], paths: Callable[[], list[str]]) -> None:
    """Check one leaf of each type and dtype, in the order of the leaves."""
    if not found:
        return
    _checks.leaf(found[0], paths, 0)
    if len(kinds) == 1 and all(map(_dtypes.is_floating, set(map(_dtype, found)))):  # as nearly always
        return
    seen = [(type(x), getattr(x, "dtype", None)) for x in found]
    for i in sorted(map(seen.index, set(seen))):
        _checks.leaf(found[i], paths, i)
    try:
        ns.namespace(found)
    except TypeError:
        _checks.mixed([(p, type(x).__name__) for p, x in zip(paths(), found, strict=True)])


def _walk(container: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Return the leaves, and a function that rebuilds the container from leaves."""
    kind = type(container)
    if kind in _PLAIN and len(set(map(type, container))) == 1 and ns.is_array(container[0]):  # the usual case
        return list(container), kind
    if _is_dataclass(container):
        return _walk_fields(container)
    leaves: list[Any]
    leaves, spec = optree.tree_flatten(container)
    if not any(map(_has_fields, set(map(type, leaves)))):
        return leaves, spec.unflatten
    walked = [_walk(leaf) if _is_dataclass(leaf) else ([leaf], lambda values: values[0]) for leaf in leaves]
    return _joined(walked, spec.unflatten)


def _walk_fields(container: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    names = [field.name for field in dataclasses.fields(container)]

    def replaced(values: list[Any]) -> Any:
        new = copy.copy(container)  # its constructor may do more than set the fields
        for field, value in zip(names, values, strict=True):
            object.__setattr__(new, field, value)
        return new

    return _joined([_walk(getattr(container, field)) for field in names], replaced)


def _joined(
    parts: Sequence[tuple[list[Any], Callable[[list[Any]], Any]]], rebuild: Callable[[list[Any]], Any]
) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    def rebuilt(values: list[Any]) -> Any:
        rest = iter(values)
        return rebuild([make([next(rest) for _ in leaves]) for leaves, make in parts])

    return [leaf for leaves, _ in parts for leaf in leaves], rebuilt


def _paths(container: Any, name: str) -> list[str]:
    if _is_dataclass(container):
        fields = dataclasses.fields(container)
        return [path for f in fields for path in _paths(getattr(container, f.name), f"{name}.{f.name}")]
    leaves: list[Any]
    accessors, leaves, _ = optree.tree_flatten_with_accessor(container)
    names = [accessor.codify(name) for accessor in accessors]
    return [
        path
        for n, leaf in zip(names, leaves, strict=True)
        for path in (_paths(leaf, n) if _is_dataclass(leaf) else [n])
    ]


def _is_dataclass(x: object) -> bool:
    kind: Any = type(x)  # any type is hashable
    return _has_fields(kind) and not ns.is_array(x)


@lru_cache(maxsize=256)
def _has_fields(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind)
