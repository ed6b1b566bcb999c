"""The kernels for the host's memory, written in C: sums over many arrays, multiplication and bounds in place.

They are optional. Where they were not built, or are switched off by ``GRADCLIP_NATIVE=0``, `kernels` returns None, and
plain Python does the same in more time. No Python and no framework is inside, so that one library serves all of them.
"""

import ctypes
import math
import os
import sys
from array import array
from collections.abc import Iterable
from functools import cache
from pathlib import Path

CODES = {"float64": 0, "float32": 1, "float16": 2, "bfloat16": 3}
"""What the library calls the dtypes."""

_ORDERS = {2.0: 2, 1.0: 1, math.inf: 0}
"""What it calls the orders of norms that it has sums for."""

_VERSION = 1
"""Which functions the library must have."""

_MOST_THREADS = 4
"""More do not read memory faster."""


class Table:
    """Arrays of one real dtype, each one run of elements in memory. It does not keep them alive.

    Parameters
    ----------
    code : int
        The dtype, as in `CODES`.
    addresses, numels : iterable of int
        Where each begins, and how many elements it has. A complex array counts as real numbers, two an element.
    """

    __slots__ = ("_kept", "arguments", "code", "count")

    def __init__(self, code: int, addresses: Iterable[int], numels: Iterable[int]) -> None:
        self._kept = places, lengths = array("Q", addresses), array("Q", numels)
        self.code, self.count = code, len(places)
        self.arguments = places.buffer_info()[0], lengths.buffer_info()[0], self.count

    @property
    def numel(self) -> int:
        """How many elements all have."""
        return sum(self._kept[1])


class Kernels:
    """The functions of the library. Each lets other Python threads run.

    Parameters
    ----------
    path : Path
        The library.
    level : int
        1 for the fastest instructions that the processor has, 0 for those that every processor has.
    """

    def __init__(self, path: Path, level: int = 1) -> None:
        library = ctypes.CDLL(str(path))
        if (found := library.gradclip_version()) != _VERSION:
            raise OSError(f"{path} has version {found}, expected {_VERSION}; install gradclip anew")
        self._level = level
        number, real, place, size = ctypes.c_int, ctypes.c_double, ctypes.c_void_p, ctypes.c_size_t
        table = [number, number, place, place, size]
        self._sum, self._scale, self._clamp = library.gradclip_sum, library.gradclip_scale, library.gradclip_clamp
        self._sum.restype, self._sum.argtypes = real, [*table, number, real, number, place]
        for replace in (self._scale, self._clamp):
            replace.restype, replace.argtypes = None, [*table, real, real, number]

    def sum(self, table: Table, ord: float, threads: int, unit: float = 1.0) -> float:
        """Return the sum of ``|x * unit| ** ord`` over all elements, the largest ``|x * unit|`` for ``ord=inf``."""
        total: float = self._sum(table.code, self._level, *table.arguments, _ORDERS[ord], unit, threads, None)
        return total

    def sums(self, table: Table, ord: float, threads: int) -> list[float]:
        """Return the sum of ``|x| ** ord`` of each array, its largest ``|x|`` for ``ord=inf``."""
        each = array("d", bytes(8 * table.count))
        place = each.buffer_info()[0]
        self._sum(table.code, self._level, *table.arguments, _ORDERS[ord], 1.0, threads, place)
        return each.tolist()

    def scale_(self, table: Table, first: float, second: float, threads: int) -> None:
        """Multiply all elements by two numbers, one after the other, in float64, and round once."""
        self._scale(table.code, self._level, *table.arguments, first, second, threads)

    def clamp_(self, table: Table, low: float, high: float, threads: int) -> None:
        """Move all elements into bounds; NaN stays NaN."""
        self._clamp(table.code, self._level, *table.arguments, low, high, threads)


@cache
def kernels() -> Kernels | None:
    """Return the kernels, or None where there are none."""
    if os.environ.get("GRADCLIP_NATIVE", "1") == "0":
        return None
    try:
        return Kernels(Path(__file__).with_name("kernels.dll" if sys.platform == "win32" else "kernels.so"))
    except OSError:  # it was not built, or for another machine
        return None


def has_order(ord: float) -> bool:
    """Whether the kernels have a sum for an order of norms."""
    return ord in _ORDERS


@cache
def threads() -> int:
    """Return how many threads may work: as many as this process has processors, or ``OMP_NUM_THREADS`` says."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, min(found, int(wanted) if wanted.isdecimal() else found, _MOST_THREADS))
