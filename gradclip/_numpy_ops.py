"""``Ops`` for NumPy: `HostOps`, with `NumpyMemory`, which knows where NumPy's arrays are."""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from typing import Any

import numpy as np

from gradclip import _dtypes, _native
from gradclip import _namespace as ns
from gradclip._array_ops import ArrayOps
from gradclip._host_memory import Runs, code_of, is_leading, runs_of
from gradclip._host_ops import HostOps
from gradclip._limits import JOIN_MEAN_NUMEL, JOIN_UP_TO_NUMEL
from gradclip._memory import NDArray, in_byte_order
from gradclip._native import Table


class NumpyMemory:
    """Answers to what `HostOps` asks about NumPy's arrays; see `gradclip._host_memory.Memory`."""

    def runs(self, leaves: Sequence[NDArray]) -> Runs:
        """Return where arrays are. The kernels read those without gaps or reversed axes, in native byte order."""
        return _alike(leaves) or runs_of(map(_place, leaves))

    def joined(self, leaves: Sequence[NDArray]) -> Sequence[NDArray]:
        """Return arrays to read in the place of small ones: all of them laid end to end.

        To ask NumPy where an array lies takes longer than to copy a small one.
        """
        numel = sum(map(_size, leaves))
        if len(leaves) < 2 or numel > min(JOIN_UP_TO_NUMEL, len(leaves) * JOIN_MEAN_NUMEL):
            return leaves
        dtypes = set(map(_dtype, leaves))
        if len(dtypes) > 1 or _code(*dtypes) is None:
            return leaves
        return [np.concatenate(leaves, axis=None)]

    def threads(self) -> _native.Threads:
        """Return which threads may work."""
        return _native.threads()

    def numbers(self, values: Any, double: bool) -> NDArray:
        """Return a number, or numbers, as an array of float64 or float32."""
        return np.asarray(values, dtype=self.dtype(double))

    def dtype(self, double: bool) -> type[np.float32 | np.float64]:
        """Return the dtype of such an array."""
        return np.float64 if double else np.float32

    def like(self, leaf: NDArray) -> NDArray:
        """Return a new array of the shape, dtype and order of axes of another."""
        return np.empty_like(leaf, subok=False)

    def own(self, values: NDArray) -> NDArray:
        """Return the array: it is NumPy's already."""
        return values

    def holds(self, leaves: Sequence[NDArray]) -> bool:
        """Whether leaves are arrays, not scalars."""
        return all(issubclass(kind, np.ndarray) for kind in set(map(type, leaves)))

    def leads(self, leaf: NDArray, kept: int) -> bool:
        """Whether the slices along the first ``kept`` axes of an array lie one after the other; it is one run."""
        return bool(leaf.flags.c_contiguous) or is_leading(leaf.shape, leaf.strides, kept, leaf.itemsize)

    def is_plain(self, leaves: Sequence[NDArray]) -> bool:  # noqa: ARG002  # they always are
        """Whether the elements of arrays are those in memory."""
        return True

    def written(self, leaves: Sequence[NDArray]) -> None:
        """Do nothing: NumPy does not watch its arrays."""


_from_buffer: Callable[[Any], Any] = (ctypes.c_char * 0).from_buffer
_dtype, _size, _nbytes = attrgetter("dtype"), attrgetter("size"), attrgetter("nbytes")

_MEMORY = NumpyMemory()
_REST = ArrayOps(ns.namespace([np.zeros(())]))


def numpy_ops() -> HostOps:
    """Return the operations for NumPy arrays."""
    return HostOps(_REST, _MEMORY)


def _alike(leaves: Sequence[NDArray]) -> Runs | None:
    """Return where arrays are, in few calls, if all have one dtype and C's order; else None."""
    dtypes = set(map(_dtype, leaves))
    code = _code(*dtypes) if len(dtypes) == 1 else None
    addresses = None if code is None else _addresses(leaves)
    if code is None or addresses is None:
        return None
    table = Table(addresses, list(map(_nbytes, leaves)), bytes([code[0]]) * len(leaves))
    return Runs(table, range(len(leaves)), (), code[1])


def _addresses(leaves: Sequence[NDArray]) -> list[int] | None:
    """Return the address of each array; None if one is not in C's order."""
    if set(map(type, leaves)) != {np.ndarray}:
        return None
    try:
        return list(map(ctypes.addressof, map(_from_buffer, leaves)))  # in a third of the time of what follows
    except (TypeError, ValueError):  # one cannot be written, is in another order, or of a dtype that buffers lack
        if not all(x.flags.c_contiguous for x in leaves):
            return None
        return [x.__array_interface__["data"][0] for x in leaves]


def _place(x: NDArray) -> tuple[int, int, tuple[int, bool]] | None:
    """Return an array's address, nbytes and dtype, or None if the kernels cannot read it."""
    code = _code(x.dtype) if isinstance(x, np.ndarray) else None  # a scalar has no address
    if code is None:
        return None
    flat = x if x.flags.c_contiguous or min(x.strides) < 0 else in_byte_order(x)
    return (flat.__array_interface__["data"][0], flat.nbytes, code) if flat.flags.c_contiguous else None


@cache
def _code(dtype: np.dtype[Any]) -> tuple[int, bool] | None:
    return code_of(_dtypes.dtype_name(dtype)) if _dtypes.is_native(dtype) else None
