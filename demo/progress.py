"""Progress of the training: bars on a terminal, a few lines in a log."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from demo.clipping import Rule
from demo.style import COLOURS, death, number
from demo.train import Run, Watch

LINES = 5
"""The number of lines that a run writes to a log."""


@contextmanager
def watching(console: Console, rules: Sequence[Rule], steps: int) -> Iterator[Watch]:
    """Yield the function that shows each step, on a terminal or in a log."""
    if console.is_terminal and not console.is_dumb_terminal:
        with _bars(console) as bars:
            yield _watch_bars(bars, rules, steps)
    else:
        yield lambda run: _write_line(console, run)


def _bars(console: Console) -> Progress:
    """Return the display, which has one row per run."""
    return Progress(
        TextColumn("[{task.fields[colour]}]{task.description:<14}"),
        BarColumn(bar_width=14),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        console=console,
    )


def _watch_bars(bars: Progress, rules: Sequence[Rule], steps: int) -> Watch:
    """Set up the rows in their order and return the function that moves them."""
    tasks = {
        rule.name: bars.add_task(rule.name, total=steps, start=False, colour=colour, status="[dim]waiting")
        for rule, colour in zip(rules, COLOURS, strict=True)
    }

    def watch(run: Run) -> None:
        task = tasks[run.rule.name]
        if run.survived <= 1:
            bars.start_task(task)
        bars.update(task, completed=run.survived, status=_status(run))
        if run.fatal is not None:
            bars.stop_task(task)

    return watch


def _status(run: Run) -> str:
    """Return the state of a run in a few words."""
    if run.fatal is not None:
        return f"[bold red]{death(run.survived + 1, run.fatal)}"
    return f"loss {number(run.losses[-1]):<7} norm {number(run.norms[-1]):<7}"


def _write_line(console: Console, run: Run) -> None:
    """Write a line for some of the steps, and when a run ends."""
    line = f"{run.rule.name:<14}  step {run.survived:>5,} of {run.steps:,}"
    if run.fatal is not None:
        console.print(f"{line}  {death(run.survived + 1, run.fatal)}", highlight=False)
    elif not run.sample and run.survived % max(1, run.steps // LINES) == 0:
        console.print(f"{line}  loss {number(run.losses[-1])}  norm {number(run.norms[-1])}", highlight=False)
