"""Where leaves are in memory: which are the same, which overlap, and a view of one in the order of its bytes."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import repeat
from operator import add, attrgetter, is_, le
from typing import Any, TypeAlias

import numpy as np

from gradclip import _namespace as ns
from gradclip._limits import OVERLAP_WORK
from gradclip._types import AnyArray

NDArray: TypeAlias = np.ndarray[Any, Any]

UNSUPPORTED = AttributeError, TypeError, ValueError, RuntimeError, BufferError
"""What namespaces raise for arrays of which they cannot give a view."""

_base = attrgetter("base")


def identities(leaves: Sequence[AnyArray], kinds: set[Any]) -> list[Hashable]:
    """Return a key for each leaf: equal for the same array, and for NumPy views of exactly the same elements.

    ``kinds`` has the types of the leaves.
    """
    if not any(map(_is_numpy, kinds)) or (kinds == ns.NUMPYS and _own(leaves)):
        return list(map(id, leaves))
    return [_place(x) if isinstance(x, np.ndarray) else id(x) for x in leaves]


def owns_all(leaves: Sequence[AnyArray], kinds: set[Any]) -> bool:
    """Whether every leaf, of which these are the types, is a NumPy array that is no view: it overlaps no other leaf."""
    return kinds <= ns.NUMPYS and _own(leaves)


def _own(leaves: Sequence[NDArray]) -> bool:
    return all(map(is_, map(_base, leaves), repeat(None)))


@lru_cache(maxsize=256)
def _is_numpy(kind: Any) -> bool:
    return issubclass(kind, np.ndarray)


def _place(x: NDArray) -> Hashable:
    return x.__array_interface__["data"][0], x.shape, x.strides, x.dtype


def in_byte_order(x: NDArray) -> NDArray:
    """Return a view of all elements in the order of their addresses: 1-D if there are no gaps between them.

    The order of elements does not matter to norms and scaling. So a Fortran or channels-last array need not be copied.
    """
    if x.flags.c_contiguous:
        return x.reshape(-1)
    if any(step < 0 for step in x.strides):
        x = x[tuple(slice(None, None, -1 if step < 0 else 1) for step in x.strides)]
    x = x.transpose(sorted(range(x.ndim), key=lambda axis: -x.strides[axis]))
    return x.reshape(-1) if x.flags.c_contiguous else x


def ranges_are_apart(starts: Sequence[int], nbytes: Iterable[int]) -> bool:
    """Whether no two ranges of memory share a byte. Each is given by its first address and its size in bytes."""
    ends = sorted(map(add, starts, nbytes))
    return all(map(le, ends, sorted(starts)[1:]))  # each range ends before the next begins


def overlaps_itself(x: AnyArray) -> bool:
    """Whether two elements of ``x`` may have the same address, as in a broadcast array."""
    span = view_of(x)
    if span is None or span.flags.c_contiguous or span.size < 2:
        return False
    reach = span.itemsize
    for step, n in sorted((abs(step), n) for step, n in zip(span.strides, span.shape, strict=True) if n > 1):
        if step < reach:
            return True
        reach += step * (n - 1)
    return False


def overlapping_pair(leaves: Sequence[AnyArray]) -> tuple[int, int] | None:
    """Return the positions of two leaves that share an element, or None.

    Leaves whose address is not known (see ``view_of``) count as not overlapping.
    """
    if owns_all(leaves, set(map(type, leaves))):
        return None
    spans = [(*np.lib.array_utils.byte_bounds(v), i, v) for i, v in enumerate(map(view_of, leaves)) if v is not None]
    spans = sorted((span for span in spans if span[3].size), key=lambda span: span[:3])
    open_spans: list[tuple[int, int, int, NDArray]] = []
    for start, stop, i, view in spans:
        open_spans = [span for span in open_spans if span[1] > start]
        for _, _, j, other in open_spans:
            if _share(view, other):
                return min(i, j), max(i, j)
        open_spans.append((start, stop, i, view))
    return None


def _share(one: NDArray, other: NDArray) -> bool:
    try:
        return np.shares_memory(one, other, max_work=OVERLAP_WORK)  # type: ignore[arg-type]  # any int, NumPy says
    except np.exceptions.TooHardError:
        return True  # undecided: refuse them, because an element might be scaled twice


def view_of(x: AnyArray) -> NDArray | None:
    """Return a NumPy array with the address, shape and strides of ``x``, or None if these are not known.

    It is compared and never read, because the address may belong to a GPU.
    """
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "data_ptr") and hasattr(x, "stride"):  # torch
        address = x.data_ptr()  # 0 for a meta tensor, and for a tensor without elements
        width = x.element_size()
        return phantom(address, tuple(x.shape), width, tuple(step * width for step in x.stride())) if address else None
    if ns.is_lazy(x):
        return None
    return next(numpy_views(x), None)


def numpy_views(x: AnyArray) -> Iterator[NDArray]:
    """Yield NumPy arrays on the memory of ``x``: by DLPack, then by NumPy's protocols, for dtypes that DLPack lacks."""
    for look in (np.from_dlpack, lambda x: np.asarray(x, copy=False)):
        with suppress(*UNSUPPORTED):
            yield look(x)


def phantom(address: int, shape: tuple[int, ...], width: int, strides: tuple[int, ...] | None) -> NDArray:
    """Return a NumPy array of elements of ``width`` bytes at an address, with strides in bytes (None: in C order).

    It is compared and never read.
    """
    place: dict[str, object] = {
        "data": (address, False),
        "shape": shape,
        "strides": strides,
        "typestr": f"|V{width}",
        "version": 3,
    }
    return np.asarray(_Interface(place))


class _Interface:
    def __init__(self, interface: dict[str, object]) -> None:
        self.__array_interface__ = interface
