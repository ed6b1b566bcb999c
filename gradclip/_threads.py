"""Work on NumPy arrays by several threads: one alone waits for memory, and NumPy lets the others run meanwhile."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise

import numpy as np

SHARED, _MOST = 1 << 25, 4
"""Bytes from which on several threads are started, which takes a tenth of a millisecond; and how many at most."""


@cache
def threads() -> int:
    """Return how many threads may work: as many as this process has processors, or ``OMP_NUM_THREADS`` says."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, min(found, int(wanted) if wanted.isdecimal() else found, _MOST))


def share(work: Callable[[int, int], None], count: int, threads: int) -> None:
    """Call ``work(begin, end)`` for equal parts of ``range(count)``, each on a thread of its own, and wait for all.

    A part whose thread cannot be started is done here. An error in any of them is raised.
    """
    bounds = [count * thread // threads for thread in range(threads + 1)]
    errors: list[BaseException] = []

    def run(begin: int, end: int) -> None:
        try:
            with np.errstate(all="ignore"):  # which every thread has for itself
                work(begin, end)
        except BaseException as e:
            errors.append(e)

    mine, *others = pairwise(bounds)
    here, started = [mine], []
    for part in others:
        thread = threading.Thread(target=run, args=part)
        try:
            thread.start()
        except RuntimeError:  # at the interpreter's end, or beyond a limit
            here.append(part)
        else:
            started.append(thread)
    for part in here:
        run(*part)
    for thread in started:
        thread.join()
    if errors:
        raise errors[0]


def cut(lengths: Sequence[int], begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield what lies between two places of sequences laid end to end: which sequence, from where and up to where."""
    first = 0
    for i, length in enumerate(lengths):
        low, high = max(begin - first, 0), min(end - first, length)
        if low < high:
            yield i, low, high
        first += length
