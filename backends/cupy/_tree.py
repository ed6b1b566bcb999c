"""Containers of CuPy arrays, of Chainer's links and parameters, and of arrays that come by DLPack."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from gradclip import _checks
from gradclip import _namespace as ns
from gradclip._ops import Ops
from gradclip._tree import Leaves, _joined, _paths, _walk, firsts, ops_for
from gradclip._types import AnyArray
from gradclip._weights import refuse_weights
from gradclip._words import a
from gradclip.backends.cupy._gpu import kernels_work
from gradclip.backends.cupy._ops import CupyOps
from gradclip.backends.cupy._places import Places
from gradclip.backends.cupy._runtime import Runtime, runtime

Parts: TypeAlias = tuple[list[AnyArray], Callable[[list[Any]], Any], list[str]]
"""The arrays of a leaf, a function that rebuilds the leaf from new arrays, and suffixes of the leaf's path."""


@dataclass(frozen=True, slots=True)
class CupyLeaves(Leaves):
    """CuPy arrays, each once.

    Parameters
    ----------
    places : Places
        Where they lie.
    fixed : str or None
        The type of an array that came by DLPack and cannot be written, if there is one.
    """

    places: Places
    fixed: str | None = None

    def targets(self, pure: str) -> list[AnyArray]:
        """Return the arrays, or raise if they cannot be written. Overlaps are checked once for the same places."""
        if self.fixed is not None:
            raise TypeError(
                f"a leaf is {a(self.fixed)}, which cannot be written, expected writable arrays; "
                f"use gradclip.backends.cupy.{pure}(), which returns new arrays"
            )
        if not self.places.apart:
            _checks.writable([place.view() for place in self.places.items], self.array_paths, pure)
        return self.arrays


def flatten(
    container: object,
    name: str = "grads",
    *,
    attribute: str = "grad",
    distinct: bool = True,
    weights: bool = False,
) -> CupyLeaves:
    """Return the leaves of a container, checked.

    Parameters
    ----------
    container : array, link, parameter or container of these
        CuPy arrays; arrays on a CUDA device that come by DLPack; objects with ``grad`` and ``data``, such as Chainer's
        parameters; objects with ``namedparams()``, such as its links. None stays None.
    name : str
        The name of the container in error messages.
    attribute : {"grad", "data"}
        The attribute that is read of a parameter.
    distinct : bool
        Whether arrays of the same memory count once.
    weights : bool
        Whether leaves may be PyTorch's parameters. They must not if gradients are expected.

    Raises
    ------
    RuntimeError
        If there is no CuPy or no GPU.
    TypeError
        If a leaf is not an array of floating-point numbers on a GPU.
    """
    return leaves_of(Source(runtime(), attribute), container, name, distinct=distinct, weights=weights)


class Source:
    """Conversion of leaves to CuPy arrays: arrays, arrays that come by DLPack, and an attribute of parameters.

    Parameters
    ----------
    runtime : Runtime
        The GPUs.
    attribute : {"grad", "data"}
        What is taken of a parameter.
    """

    def __init__(self, runtime: Runtime, attribute: str) -> None:
        self.runtime = runtime
        self.attribute = attribute
        self._cupy = runtime.cupy
        self.kind: Any = runtime.cupy.ndarray

    def parts(self, leaf: Any) -> Parts | None:
        """Return the parts of a leaf, or None for an unknown type."""
        if isinstance(leaf, self.kind):
            return [leaf], _first, [""]
        if hasattr(leaf, "__dlpack__"):
            return self._imported(leaf)
        if callable(getattr(leaf, "namedparams", None)):
            named = {path: getattr(p, self.attribute) for path, p in leaf.namedparams()}
            there = {path: x for path, x in named.items() if x is not None}
            return list(there.values()), lambda new: named | dict(zip(there, new, strict=True)), list(there)
        if hasattr(leaf, self.attribute):
            x = getattr(leaf, self.attribute)
            if x is None:
                return [], lambda _: None, []
            return ([x], _first, [f".{self.attribute}"]) if isinstance(x, self.kind) else None
        return None

    def _imported(self, leaf: Any) -> Parts | None:
        """Return an array of another framework as a CuPy array on the same memory."""
        if leaf.__dlpack_device__()[0] not in _CUDA:
            return None
        back = ns.namespace([leaf]).from_dlpack
        return [self._cupy.from_dlpack(leaf)], lambda values: back(values[0]), [""]


_CUDA = {2, 3, 13}
"""DLPack's numbers for memory that a CUDA device can write: its own, pinned host memory, managed memory."""


def leaves_of(
    source: Source,
    container: object,
    name: str,
    *,
    distinct: bool = True,
    weights: bool = False,
) -> CupyLeaves:
    """Return the leaves of a container whose arrays come from ``source``."""
    found, rebuild = _walk(container)
    fixed, expanded = None, None
    if not all(type(x) is source.kind for x in found):
        if source.attribute == "grad" and not weights:
            refuse_weights(container, name, found, set(map(type, found)), lambda: _paths(container, name))
        fixed = next((type(x).__name__ for x in found if _is_fixed(x)), None)
        expanded = [_expanded(source, x, container, name, i) for i, x in enumerate(found)]
        found, rebuild = _joined([(arrays, make) for arrays, make, _ in expanded], rebuild)

    def paths() -> list[str]:
        names = _paths(container, name)
        more = [[""]] * len(names) if expanded is None else [suffixes for _, _, suffixes in expanded]
        return [path + suffix for path, suffixes in zip(names, more, strict=True) for suffix in suffixes]

    places = source.runtime.places(found)
    for kind in places.dtypes:
        position = next(i for i, p in enumerate(places.items) if p.dtype == kind)
        _checks.leaf(found[position], paths, position)
    if places.askew is not None:
        raise ValueError(
            f"{paths()[places.askew]} lies at an address that is no multiple of its elements' size, expected an "
            "aligned array, for a GPU reads no other; pass a copy of it"
        )
    slots = places.slots if distinct else range(len(found))
    arrays = found if isinstance(slots, range) else firsts(found, slots)
    if len(arrays) < len(found):
        places = source.runtime.places(arrays)
    return CupyLeaves(arrays, _ops_for(source.runtime, arrays, places), slots, rebuild, paths, places, fixed)


def _ops_for(runtime: Runtime, arrays: list[AnyArray], places: Places) -> Ops:
    """Return the operations for arrays: with the CUDA kernels, if they can be used on all of the arrays' GPUs."""
    if arrays and kernels_work(runtime, [device for device, _ in places.by_device]):
        return CupyOps(ns.namespace(arrays), runtime, arrays, places)
    return ops_for(arrays)


def _expanded(source: Source, leaf: Any, container: object, name: str, position: int) -> Parts:
    parts = source.parts(leaf)
    if parts is None:
        kind = f"{type(leaf).__module__}." * ns.is_array(leaf) + type(leaf).__name__
        raise TypeError(
            f"{_paths(container, name)[position]} is {a(kind)}, expected an array on a GPU, or an object with "
            f".{source.attribute}; convert it with cupy.asarray, or pass None for no gradient"
        )
    return parts


def _is_fixed(x: Any) -> bool:
    return hasattr(x, "__dlpack__") and ns.is_array(x) and not ns.is_writable(x)


def _first(values: list[Any]) -> Any:
    return values[0]
