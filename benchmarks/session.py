"""A run: every row whose name ``--only`` matches, framework by framework, then memory and accuracy."""

import re
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

from benchmarks import accuracy, frameworks, isolated, machine, memory
from benchmarks.report import Report
from benchmarks.row import Row, Skipped
from benchmarks.timing import Plan

if TYPE_CHECKING:
    from benchmarks.accuracy import Implementation

T = TypeVar("T")


class Session:
    """One run.

    Parameters
    ----------
    plan : Plan
        How long to measure.
    only : pattern
        The regular expression that a name has to match.
    progress : Console
        Where progress, and the tracebacks of rows that fail, are printed.
    """

    def __init__(self, plan: Plan, only: re.Pattern[str], progress: Console) -> None:
        self._plan = plan
        self._only = only
        self._progress = progress
        self._report = Report(machine.describe(), plan.shrink)

    def run(self) -> Report:
        """Measure the rows. One that fails is reported, and the run goes on. A run that is stopped is reported, too."""
        start = perf_counter()
        try:
            self._run()
        except KeyboardInterrupt:
            self._report.failed["everything after that"] = "stopped from the keyboard"
        self._report.seconds = perf_counter() - start
        return self._report

    def _run(self) -> None:
        with_memory: list[Row] = []
        implementations: list[Implementation] = []
        for _, framework in frameworks.all_loaded():
            if isinstance(framework, Skipped):
                self._report.skipped.append(framework)
                continue
            self._report.versions |= framework.versions()
            implementations += framework.implementations()
            with isolated.measuring(self._plan) as measure:
                for row in framework.rows():
                    self._measure(row.name, row.missing, partial(measure, row), self._report.speed)
                    with_memory += [row] if row.memory else []
        # Memory comes last, because it would disturb the times; each row has its own process.
        for row in with_memory:
            work = partial(memory.measure, row, shrink=self._plan.shrink)
            self._measure(f"memory/{row.name}", row.missing, work, self._report.memory)
        for case in accuracy.CASES:
            if self._plan.shrink and not case.quick:
                continue
            answers = partial(accuracy.measure, case, implementations, shrink=self._plan.shrink)
            self._measure(f"accuracy/{case.name}", None, answers, self._report.accuracy)

    def _measure(self, name: str, missing: str | None, work: Callable[[], T], into: list[T]) -> None:
        if not self._only.search(name):
            return
        start = perf_counter()
        if missing is None:
            try:
                into.append(work())
            except ModuleNotFoundError as e:
                missing = f"{e.name} is not installed"
            except Exception as e:
                self._progress.print(traceback.format_exc(), style="red", markup=False, highlight=False)
                self._report.failed[name] = f"{type(e).__name__}: {e}"
        if missing is not None:
            self._report.skipped.append(Skipped(name, missing))
        took = f"skipped: {missing}" if missing else f"{perf_counter() - start:.1f} s"
        self._progress.print(f"{name}  {took}", style="dim", markup=False, highlight=False, soft_wrap=True)


def listing() -> Iterator[tuple[str, str]]:
    """Yield the name of every row, with its budgets or the reason why it cannot be measured."""
    with_memory: list[str] = []
    for _, framework in frameworks.all_loaded():
        if isinstance(framework, Skipped):
            yield framework.name, f"skipped: {framework.reason}"
            continue
        for row in framework.rows():
            budgets = "; ".join(f"{budget} against {budget.against}" for budget in row.budgets)
            yield row.name, f"skipped: {row.missing}" if row.missing else budgets
            with_memory += [f"memory/{row.name}"] if row.memory else []
    for name in [*with_memory, *(f"accuracy/{case.name}" for case in accuracy.CASES)]:
        yield name, ""
