"""The kernels for the host's memory, written in C: sums over many arrays, multiplication, bounds.

They are optional. Where they were not built, or are switched off by ``GRADCLIP_NATIVE=0``, `kernels` returns None, and
plain Python does the same in more time. No Python and no framework is inside, so that one library serves all of them.
"""

import ctypes
import math
import os
import sys
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gradclip._limits import MOST_THREADS

NDArray: TypeAlias = np.ndarray[Any, Any]
Numbers: TypeAlias = Sequence[float] | NDArray

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
_SOME_COMPLEX = 2
_FORKED_NOT_EXECUTED = 0x40  # PF_FORKNOEXEC of Linux
_VERSION = 3
"""The version that the library must have: it says which functions there are."""

_from_buffer: Callable[[Any], Any] = (ctypes.c_char * 0).from_buffer


class Threads(NamedTuple):
    """Which threads may work on a call.

    Parameters
    ----------
    most : int
        The largest number of threads.
    team : int
        What `team_in` found, if a framework lends its threads; 0: threads are started for each call.
    """

    most: int
    team: int = 0


class Table:
    """Where some arrays are, each one run of elements in memory. It does not keep them alive.

    Parameters
    ----------
    addresses, nbytes : sequence of int
        Where each begins, and how many bytes it has.
    codes : bytes
        The dtype of each, as in `CODES`; of a complex array, that of its real and imaginary parts.
    """

    __slots__ = ("_places", "arguments", "codes")

    def __init__(self, addresses: Sequence[int], nbytes: Sequence[int], codes: bytes) -> None:
        self._set(array("Q", [*addresses, *nbytes]), codes)

    def _set(self, places: "array[int]", codes: bytes) -> None:
        self._places, self.codes = places, codes
        pointer, count = places.buffer_info()[0], len(codes)
        self.arguments = pointer, pointer + 8 * count, codes, count

    @classmethod
    def over(cls, places: "array[int]", codes: bytes) -> "Table":
        """Return the table whose addresses, and after them counts of bytes, are in an array already."""
        table = cls.__new__(cls)
        table._set(places, codes)
        return table

    @property
    def pointer(self) -> int:
        """The address of the addresses."""
        return self.arguments[0]

    @property
    def addresses(self) -> "array[int]":
        """Where each array begins."""
        return self._places[: len(self.codes)]

    @property
    def nbytes(self) -> "array[int]":
        """How many bytes each array has."""
        return self._places[len(self.codes) :]

    def rows(self, which: Any) -> "Table":
        """Return the table of some of the arrays: of those with these indices, or where a boolean array is True."""
        places = np.frombuffer(self._places, np.uint64).reshape(2, -1)[:, which]
        return Table.over(_as_array("Q", places), np.frombuffer(self.codes, np.uint8)[which].tobytes())

    def cut(self, parts: Sequence[int]) -> "Table":
        """Return the table of the parts of all arrays, one after the other; ``parts`` has their number for each."""
        counts = np.asarray(parts, np.int64)
        places = np.frombuffer(self._places, np.int64).reshape(2, -1)
        steps = places[1] // np.maximum(counts, 1)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        steps_of_rows = np.repeat(steps, counts)
        found = np.stack([np.repeat(places[0], counts) + within * steps_of_rows, steps_of_rows])
        return Table.over(_as_array("Q", found), np.repeat(np.frombuffer(self.codes, np.uint8), counts).tobytes())


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
        self._sum.restype, self._sum.argtypes = real, [*table, number, number, real, number, place, place]
        self._replace.restype, self._replace.argtypes = (
            None,
            [*table, place, *[number] * 2, place, place, *[number] * 2, place],
        )
        self._apart.restype, self._apart.argtypes = number, [place, place, size]
        self._locate = ctypes.PyDLL(str(path)).gradclip_locate  # it calls Python's functions, and keeps the lock
        self._locate.restype, self._locate.argtypes = number, [place, place, size, place, place, place]

    def sum(self, table: Table, ord: float, threads: Threads, multiplier: float = 1.0) -> float:
        """Return the sum of ``|x * multiplier| ** ord`` over all elements; for ``ord=inf``, the largest of them."""
        total: float = self._sum(*table.arguments, self._level, ORDERS[ord], multiplier, *threads, None)
        return total

    def sums(self, table: Table, ord: float, threads: Threads) -> "array[float]":
        """Return the sum of ``|x| ** ord`` of each array, its largest ``|x|`` for ``ord=inf``."""
        each = array("d", bytes(8 * len(table.codes)))
        self._sum(*table.arguments, self._level, ORDERS[ord], 1.0, *threads, each.buffer_info()[0])
        return each

    def scale(self, table: Table, first: Numbers, second: Numbers, threads: Threads, out: Table) -> None:
        """Multiply all elements by two numbers, one after the other, in float64; write them to ``out``, rounded once.

        There is one number for all arrays in each of ``first`` and ``second``, or one for each.
        """
        self._write(_SCALE, table, first, second, threads, out)

    def clamp(self, table: Table, low: Numbers, high: Numbers, threads: Threads, out: Table) -> None:
        """Write all elements to ``out``, moved into bounds; NaN stays NaN."""
        self._write(_CLAMP, table, low, high, threads, out)

    def clear_(self, table: Table, threads: Threads) -> None:
        """Make all elements zero."""
        self._write(_CLEAR, table, (0.0,), (0.0,), threads, table)

    def apart(self, table: Table) -> bool:
        """Whether no two of the arrays share memory."""
        return bool(self._apart(*table.arguments[:2], len(table.codes)))

    def locate(self, find: int, tensors: Sequence[Any]) -> tuple[Table, bool] | None:
        """Return where tensors are, and whether one is complex; None if one is not contiguous or cannot be read.

        Parameters
        ----------
        find : int
            The address of their framework's function, as `gradclip._dlpack_finder.finder` returns it.
        tensors : sequence of tensors
            Tensors of its type.
        """
        count = len(tensors)
        objects = np.fromiter(tensors, object, count)  # an array of pointers to them
        places, codes = array("Q", bytes(16 * count)), array("B", bytes(count))
        pointer = places.buffer_info()[0]
        where = ctypes.addressof(_from_buffer(objects))
        kind = self._locate(find, where, count, pointer, pointer + 8 * count, codes.buffer_info()[0])
        return (Table.over(places, codes.tobytes()), kind == _SOME_COMPLEX) if kind > 0 else None

    def _write(self, work: int, table: Table, one: Numbers, other: Numbers, threads: Threads, out: Table) -> None:
        numbers = _as_array("d", np.stack([one, other])) if isinstance(one, np.ndarray) else array("d", [*one, *other])
        place, each = numbers.buffer_info()[0], len(one) > 1
        places = place, place + 8 * len(one)
        self._replace(*table.arguments, out.pointer, self._level, work, *places, each, *threads)


def _as_array(kind: str, values: NDArray) -> "array[Any]":
    """Return the numbers of a NumPy array, of eight bytes each, as one of Python's."""
    found = array(kind)
    found.frombytes(values.tobytes())
    return found


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
def threads() -> Threads:
    """Return which threads may work: as many as this process has processors, or ``OMP_NUM_THREADS`` says."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return Threads(max(1, min(found, int(wanted) if wanted.isdecimal() else found, MOST_THREADS)))


@cache
def team_in(path: str | None) -> int:
    """Return the address of ``GOMP_parallel``, by which an OpenMP runtime runs a function in its threads.

    It is searched among what all libraries see (a runtime that was preloaded), then in a library and those that it
    needs. GNU's, LLVM's and Intel's runtimes have it. Between two calls, their threads wait in a loop for a while. A
    thread that is started beside them gets half of a processor. 0 if it is not there, or if this process was forked
    from another one, in which the runtime may have had threads.
    """
    if not path or kernels() is None or _is_forked():  # the kernels, once loaded, find out about later forks
        return 0
    for place in (None, path):
        with suppress(OSError, AttributeError, TypeError):
            return ctypes.cast(ctypes.CDLL(place).GOMP_parallel, ctypes.c_void_p).value or 0
    return 0


def _is_forked() -> bool:
    """Whether this process was forked and runs the program of its parent still, as Linux knows."""
    with suppress(OSError):
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return bool(int(fields[6]) & _FORKED_NOT_EXECUTED)
    return False
