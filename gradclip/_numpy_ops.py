"""``Ops`` for NumPy: `HostOps`, with what there is to know of NumPy's arrays."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from gradclip import _namespace as ns
from gradclip import _native
from gradclip._array_ops import ArrayOps
from gradclip._host_ops import HostOps, Runs, code_of
from gradclip._memory import NDArray, in_byte_order
from gradclip._native import Table


class NumpyMemory:
    """What there is to know of NumPy's arrays; see `gradclip._host_ops.Memory`."""

    def runs(self, leaves: Sequence[NDArray]) -> Runs:
        """Return where arrays lie: those of the machine's byte order, without gaps, and not backwards."""
        which, others, addresses, nbytes, codes = [], [], [], [], bytearray()
        is_complex = False
        for i, x in enumerate(leaves):
            code = _code(x.dtype) if isinstance(x, np.ndarray) else None  # a scalar has no address
            flat = x if code is None or x.flags.c_contiguous or min(x.strides) < 0 else in_byte_order(x)
            if code is None or not flat.flags.c_contiguous:
                others.append(i)
                continue
            which.append(i)
            addresses.append(flat.__array_interface__["data"][0])
            nbytes.append(flat.nbytes)
            codes.append(code[0])
            is_complex |= code[1]
        return Runs(Table(addresses, nbytes, bytes(codes)), which, others, is_complex)

    def threads(self) -> int:
        """Return how many threads may work."""
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

    def in_order(self, leaf: NDArray) -> bool:
        """Whether the elements of an array lie in C's order."""
        return bool(leaf.flags.c_contiguous)

    def is_plain(self, leaves: Sequence[NDArray]) -> bool:  # noqa: ARG002  # they always are
        """Whether the elements of arrays are what lies in memory."""
        return True

    def written(self, leaves: Sequence[NDArray]) -> None:
        """Do nothing: NumPy does not watch its arrays."""


_MEMORY = NumpyMemory()
_REST = ArrayOps(ns.namespace([np.zeros(())]))


def numpy_ops() -> HostOps:
    """Return the operations for NumPy arrays."""
    return HostOps(_REST, _MEMORY)


@cache
def _code(dtype: np.dtype[Any]) -> tuple[int, bool] | None:
    return code_of(ns.dtype_name(dtype)) if ns.is_native(dtype) else None
