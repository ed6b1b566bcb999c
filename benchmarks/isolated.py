"""Times each framework in its own process, because the threads of one framework would disturb another's."""

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
    """Yield a function that measures rows in one new process, or in this process with ``--quick``."""
    if plan.shrink:
        yield lambda row: timing.measure(row, plan)
        return
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        yield lambda row: replace(process.submit(_measured, row.name, plan).result(), row=row)


def _measured(name: str, plan: Plan) -> Result:
    nowhere: Any = None  # a row contains functions, which cannot be pickled
    return replace(timing.measure(frameworks.find(name), plan), row=nowhere)
