"""Where arrays are in the host's memory, and what `gradclip._host_ops.HostOps` asks a framework about its arrays."""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Protocol

from gradclip import _dtypes, _native
from gradclip._memory import NDArray
from gradclip._native import Table, Threads
from gradclip._types import AnyArray as Array


class Runs:
    """Where leaves are in memory.

    Parameters
    ----------
    table : Table
        The leaves that the kernels can read. Each is one run of memory, in any order of axes.
    which, others : sequence of int
        The positions of the leaves in the table, and those of the leaves that are not in it.
    is_complex : bool
        Whether a leaf in the table is complex.
    """

    __slots__ = ("is_complex", "others", "table", "which")

    def __init__(
        self, table: Table, which: Sequence[int], others: Sequence[int] = (), is_complex: bool = False
    ) -> None:
        self.table, self.which, self.others, self.is_complex = table, which, others, is_complex


def runs_of(found: Iterable[tuple[int, int, tuple[int, bool]] | None]) -> Runs:
    """Return the runs of leaves. ``found`` has address, nbytes and dtype (see `code_of`) of each; None: no run."""
    which, others, addresses, nbytes, codes = [], [], [], [], bytearray()
    is_complex = False
    for i, run in enumerate(found):
        if run is None:
            others.append(i)
            continue
        address, length, (code, is_pair) = run
        which.append(i)
        addresses.append(address)
        nbytes.append(length)
        codes.append(code)
        is_complex |= is_pair
    return Runs(Table(addresses, nbytes, bytes(codes)), which, others, is_complex)


class Memory(Protocol):
    """What `gradclip._host_ops.HostOps` asks of a framework about its arrays in the host's memory."""

    def runs(self, leaves: Sequence[Array]) -> Runs | None:
        """Return where leaves are, or None if they have no addresses because they are traced."""
        ...

    def joined(self, leaves: Sequence[Array]) -> Sequence[Array]:
        """Return arrays that have the elements of the leaves and are read in less time, or the leaves themselves."""
        ...

    def threads(self) -> Threads:
        """Return which threads a call may use."""
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

    def own(self, values: NDArray) -> Array:
        """Return a NumPy array as an array of the framework, on the same memory."""
        ...

    def holds(self, leaves: Sequence[Array]) -> bool:
        """Whether leaves are arrays of the framework in the host's memory, of no subclass, which are not traced."""
        ...

    def leads(self, leaf: Array, kept: int) -> bool:
        """Whether the slices along the first ``kept`` axes of a leaf lie one after the other; the leaf is one run."""
        ...

    def is_plain(self, leaves: Sequence[Array]) -> bool:
        """Whether the elements of leaves are those in memory, neither negated nor conjugated when they are read."""
        ...

    def written(self, leaves: Sequence[Array]) -> None:
        """Tell the framework that leaves are written through their addresses."""
        ...


def is_leading(shape: Sequence[int], steps: Sequence[int], kept: int, itemsize: int = 1) -> bool:
    """Whether the first ``kept`` axes of an array are in C's order; the others may be in any order."""
    return all(shape[i] == 1 or steps[i] == itemsize * math.prod(shape[i + 1 :]) for i in range(kept))


@cache
def code_of(name: str) -> tuple[int, bool] | None:
    """Return the kernels' code of a dtype's real parts, and whether it is complex; None if they cannot read it."""
    real = _dtypes.COMPONENTS.get(name)
    code = _native.CODES.get(real or name)
    return None if code is None else (code, real is not None)
