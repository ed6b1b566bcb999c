"""The results of a run as tables for a terminal."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks import units
from benchmarks.accuracy import MAX_NORM, Accuracy, Answer
from benchmarks.report import Report
from benchmarks.timing import Result, Timing

_WIDEST = 1000
_STYLE = {"ours": "bold cyan", "peer": "", "floor": "dim"}


def show(report: Report, console: Console) -> None:
    """Print all tables. A table is as wide as its content, on a terminal and in a pipe."""
    for table in tables(report):
        console.width = console.measure(table, options=console.options.update(width=_WIDEST, max_width=_WIDEST)).maximum
        console.print(table)
        console.print()
    for name, reason in [*((s.name, s.reason) for s in report.skipped), *report.failed.items()]:
        console.print(Text(f"not measured: {name}: {reason}", style="yellow"), soft_wrap=True)
    console.print(Text(_machine(report), style="dim"), soft_wrap=True)


def tables(report: Report) -> Iterable[Table]:
    """Yield the tables of a run."""
    if report.speed:
        yield speed_table(report)
    if report.memory:
        yield memory_table(report)
    if report.accuracy:
        yield accuracy_table(report.accuracy, "Error of the norm, against exact arithmetic", "norms")
        after = f"Error of the norm after clipping to {MAX_NORM:g}, against exact arithmetic"
        yield accuracy_table(report.accuracy, after, "clipped")


def speed_table(report: Report) -> Table:
    """Return the table of times."""
    table = _table(f"Speed, side by side: {report.caveat}" if report.caveat else "Speed, side by side")
    for header, side in (
        ("work", "left"),
        ("contender", "left"),
        ("time", "right"),
        ("quartiles", "right"),
        ("bandwidth", "right"),
        ("its time / gradclip's", "left"),
        ("budget", "left"),
        ("answer", "left"),
    ):
        table.add_column(header, justify=side, no_wrap=True)  # type: ignore[arg-type]  # one of rich's names
    before = ""
    for result in report.speed:
        if before not in ("", result.row.framework):
            table.add_section()
        before = result.row.framework
        table.add_row(*_speed_cells(result))
    return table


def _speed_cells(result: Result) -> list[RenderableType]:
    row, lines = result.row, result.timings
    work = Text.assemble((f"{row.framework}  {row.operation}\n", "bold"), row.work)
    return [
        work,
        _stack(lines, lambda t: f"floor: {t.name}" if t.role == "floor" else t.name),
        _stack(lines, lambda t: units.time(t.seconds.median)),
        _stack(lines, lambda t: units.spread(t.seconds)),
        _stack(lines, lambda t: "" if t.role == "peer" else units.bandwidth(row.bytes_moved, t.seconds.median)),
        _stack(lines, lambda t: "" if t.role == "ours" else units.times_with_quartiles(t.speedup)),
        _budgets(result),
        _stack(lines, units.doubt, style="red"),
    ]


def _budgets(result: Result) -> Text:
    text = Text()
    for timing in result.timings:
        for verdict in result.verdicts:
            if verdict.budget.against in (timing.name, timing.role):
                word, style = ("met", "green") if verdict.met else ("NOT MET", "bold red")
                text.append(f"≥ {units.times(verdict.budget.speedup)}  ").append(word, style)
        text.append("\n")
    text.rstrip()
    return text


def memory_table(report: Report) -> Table:
    """Return the table of memory."""
    table = _table("Memory that a call allocates on top of the gradients, at its peak")
    for header, side in (("work", "left"), ("gradients", "right"), ("contender", "left"), ("extra", "right")):
        table.add_column(header, justify=side, no_wrap=True)  # type: ignore[arg-type]  # one of rich's names
    for memory in report.memory:
        table.add_row(
            f"{memory.row.framework}  {memory.row.operation}\n{memory.row.work}",
            units.size(memory.gradients),
            "\n".join(memory.extra),
            "\n".join(units.size(extra) for extra in memory.extra.values()),
        )
    return table


def accuracy_table(found: Sequence[Accuracy], title: str, which: str) -> Table:
    """Return a table of relative errors. An answer that is off by more than 0.1 % is shown instead of its error."""
    table = _table(title)
    table.add_column("implementation", no_wrap=True)
    columns: list[Sequence[Answer]] = [getattr(accuracy, which) for accuracy in found]
    for accuracy, answers in zip(found, columns, strict=True):
        table.add_column(
            f"{accuracy.case.replace(', ', chr(10))}\nright: {answers[0].right:.4g}", justify="right", no_wrap=True
        )
    for at, first in enumerate(columns[0]):
        cells = [Text(units.answer(c[at]), style=_colour(c[at])) for c in columns]
        table.add_row(Text(first.implementation, style=_STYLE[first.role]), *cells)
    return table


def _colour(answer: Answer) -> str:
    return "bold red" if units.is_wrong(answer) else "green" if (answer.error or 0.0) <= 1e-6 else "yellow"


def _stack(lines: Sequence[Timing], cell: object, style: str | None = None) -> Text:
    return Text("\n").join(Text(cell(t), style=style or _STYLE[t.role]) for t in lines)  # type: ignore[operator]


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=box.HORIZONTALS, show_lines=True
    )


def _machine(report: Report) -> str:
    m = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    hardware = f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['system']}"
    return f"{hardware}; Python {m['python']}, {versions}; commit {m['commit']}, {m['date']}, {report.seconds:.0f} s"
