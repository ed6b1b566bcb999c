"""Times in a process of its own for each framework: threads that one has started would get in the way of another's."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

from benchmarks import frameworks, timing
from benchmarks.row import Row
from benchmarks.timing import Plan, Result


@contextmanager
def measuring(plan: Plan) -> Iterator[Callable[[Row], Result]]:
    """Yield what measures rows, all in one new process; in this one where gradients are cut down and times are none."""
    if plan.shrink:
        yield lambda row: timing.measure(row, plan)
        return
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        yield lambda row: replace(process.submit(_measured, row.name, plan).result(), row=row)


def _measured(name: str, plan: Plan) -> Result:
    nowhere: Any = None  # a row holds functions, which do not travel
    return replace(timing.measure(frameworks.find(name), plan), row=nowhere)
