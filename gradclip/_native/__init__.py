"""The kernels for the host's memory, written in C: sums over many arrays, multiplication, bounds.

They are optional. Where they were not built, or are switched off by ``GRADCLIP_NATIVE=0``, `kernels` returns None, and
plain Python does the same in more time. No Python and no framework is inside, so that one library serves all of them.
"""

import ctypes
import math
import os
import sys
from array import array
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

_WANTED = os.environ.get("GRADCLIP_NATIVE") or "1"
PATH = Path(__file__).with_name("kernels.dll" if sys.platform == "win32" else "kernels.so")
"""Where the library is, if it was built; ``GRADCLIP_NATIVE`` may name another one, built for debugging."""

if _WANTED not in ("0", "1"):
    PATH = Path(_WANTED)

CODES = {"float64": 0, "float32": 1, "float16": 2, "bfloat16": 3}
"""What the library calls the dtypes."""

ORDERS = {2.0: 2, 1.0: 1, math.inf: 0}
"""What it calls the orders of norms that it has sums for."""

_SCALE, _CLAMP, _CLEAR = 1, 2, 3
_VERSION = 1
"""Which functions the library must have."""

_MOST_THREADS = 4
"""More do not read memory faster."""


class Table:
    """Where some arrays lie, each one run of elements in memory. It does not keep them alive.

    Parameters
    ----------
    addresses, nbytes : sequence of int
        Where each begins, and how many bytes it has.
    codes : bytes
        The dtype of each, as in `CODES`; of a complex array, that of its real and imaginary parts.
    """

    __slots__ = ("_kept", "addresses", "arguments", "codes", "nbytes", "pointer")

    def __init__(self, addresses: Sequence[int], nbytes: Sequence[int], codes: bytes) -> None:
        self.addresses, self.nbytes, self.codes = addresses, nbytes, codes
        self._kept = array("Q", addresses), array("Q", nbytes)  # of lists: of other iterables it takes twice as long
        self.pointer, lengths = (kept.buffer_info()[0] for kept in self._kept)
        self.arguments = self.pointer, lengths, codes, len(codes)

    def rows(self, which: Sequence[int]) -> "Table":
        """Return the table of some of the arrays."""
        addresses, nbytes, codes = self.addresses, self.nbytes, self.codes
        return Table([addresses[i] for i in which], [nbytes[i] for i in which], bytes([codes[i] for i in which]))

    def cut(self, parts: int) -> "Table":
        """Return the table of the equal parts of its only array."""
        (place,), (length,) = self.addresses, self.nbytes
        step = length // parts if parts else 0
        addresses = list(range(place, place + length, step)) if step else [place] * parts
        return Table(addresses, [step] * parts, self.codes * parts)


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
        table: list[Any] = [place, place, ctypes.c_char_p, size]
        self._sum, self._replace, self._apart = library.gradclip_sum, library.gradclip_replace, library.gradclip_apart
        self._sum.restype, self._sum.argtypes = real, [*table, number, number, real, number, place]
        self._replace.restype, self._replace.argtypes = (
            None,
            [*table, place, *[number] * 2, place, place, *[number] * 2],
        )
        self._apart.restype, self._apart.argtypes = number, [place, place, size]

    def sum(self, table: Table, ord: float, threads: int, unit: float = 1.0) -> float:
        """Return the sum of ``|x * unit| ** ord`` over all elements, the largest ``|x * unit|`` for ``ord=inf``."""
        total: float = self._sum(*table.arguments, self._level, ORDERS[ord], unit, threads, None)
        return total

    def sums(self, table: Table, ord: float, threads: int) -> list[float]:
        """Return the sum of ``|x| ** ord`` of each array, its largest ``|x|`` for ``ord=inf``."""
        each = array("d", bytes(8 * len(table.codes)))
        self._sum(*table.arguments, self._level, ORDERS[ord], 1.0, threads, each.buffer_info()[0])
        return each.tolist()

    def scale(self, table: Table, first: Sequence[float], second: Sequence[float], threads: int, out: Table) -> None:
        """Multiply all elements by two numbers, one after the other, in float64; write them to ``out``, rounded once.

        There is one number for all arrays in each of ``first`` and ``second``, or one for each.
        """
        self._write(_SCALE, table, first, second, threads, out)

    def clamp(self, table: Table, low: Sequence[float], high: Sequence[float], threads: int, out: Table) -> None:
        """Write all elements to ``out``, moved into bounds; NaN stays NaN."""
        self._write(_CLAMP, table, low, high, threads, out)

    def clear_(self, table: Table, threads: int) -> None:
        """Make all elements zero."""
        self._write(_CLEAR, table, (0.0,), (0.0,), threads, table)

    def apart(self, table: Table) -> bool:
        """Whether no two of the arrays share memory."""
        return bool(self._apart(*table.arguments[:2], len(table.codes)))

    def _write(
        self, work: int, table: Table, one: Sequence[float], other: Sequence[float], threads: int, out: Table
    ) -> None:
        numbers = array("d", [*one, *other])
        place, each = numbers.buffer_info()[0], len(one) > 1
        places = place, place + 8 * len(one)
        self._replace(*table.arguments, out.pointer, self._level, work, *places, each, threads)


@cache
def kernels() -> Kernels | None:
    """Return the kernels, or None where there are none."""
    return None if isinstance(found := _found(), str) else found


def status() -> str:
    """Return whether there are kernels; if not, why."""
    found = _found()
    return found if isinstance(found, str) else "built"


@cache
def _found() -> Kernels | str:
    if _WANTED == "0":
        return "switched off by GRADCLIP_NATIVE=0"
    if not PATH.exists():
        return "not built: install gradclip where there is a C compiler, or from a wheel for this platform"
    try:
        return Kernels(PATH)
    except (OSError, AttributeError) as e:  # built for another machine, or for another version
        return f"not loaded: {e}"


@cache
def threads() -> int:
    """Return how many threads may work: as many as this process has processors, or ``OMP_NUM_THREADS`` says."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, min(found, int(wanted) if wanted.isdecimal() else found, _MOST_THREADS))
