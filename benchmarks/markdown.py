"""The results of a run as Markdown tables, which docs/benchmarks.md includes."""

from collections.abc import Iterable, Sequence

from benchmarks import units
from benchmarks.accuracy import MAX_NORM, Accuracy, Answer
from benchmarks.memory import Memory
from benchmarks.report import METHOD, Report
from benchmarks.timing import Result


def render(report: Report) -> str:
    """Return the tables of speed, memory and accuracy, and a description of the machine."""
    parts = [_speed(report.speed), _memory(report.memory)]
    parts += _accuracy(report.accuracy) if report.accuracy else []
    m = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    caveat = f"**{report.caveat.capitalize()}.** " if report.caveat else ""
    parts.append(
        f"{caveat}{METHOD}\n\nMeasured on {m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['system']}; "
        f"Python {m['python']}, {versions}; commit {m['commit']}, {m['date']}."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _speed(results: Sequence[Result]) -> str:
    if not results:
        return ""
    header = ("work", "gradclip", "peer", "its time", "gradclip is", "of the floor's speed", "budget")
    return _grid(header, (_speed_cells(result) for result in results))


def _speed_cells(result: Result) -> list[str]:
    row, peer, floor = result.row, result.peers[0] if result.peers else None, result.floor
    wanted = "; ".join(
        f"{'' if v.budget.against != 'floor' else 'floor '}{v.budget} {'met' if v.met else '**not met**'}"
        for v in result.verdicts
    )
    return [
        f"{row.framework} `{row.operation}`, {row.work}",
        f"{units.time(result.ours.seconds.median)} {units.spread(result.ours.seconds)}",
        peer.name if peer else "",
        f"{units.time(peer.seconds.median)} {units.spread(peer.seconds)}" if peer else "",
        f"**{units.times(peer.speedup.median)}** as fast" if peer else "",
        units.share(floor.speedup.median) if floor else "",
        wanted,
    ]


def _memory(found: Sequence[Memory]) -> str:
    if not found:
        return ""
    header = ("memory allocated by a call", "gradients", "contender", "extra")
    cells = (
        [f"{m.row.framework} `{m.row.operation}`, {m.row.work}", units.size(m.gradients), name, units.size(extra)]
        for m in found
        for name, extra in m.extra.items()
    )
    return _grid(header, cells)


def _accuracy(found: Sequence[Accuracy]) -> list[str]:
    norms = [accuracy.norms for accuracy in found]
    clipped = [accuracy.clipped for accuracy in found]
    names = [accuracy.case for accuracy in found]
    return [
        "Relative error of the norm against exact arithmetic; an answer that is off by more than 0.1 % stands itself:",
        _answers("norm", names, norms),
        f"The same for the norm after clipping to {MAX_NORM:g}:",
        _answers("clipped", names, clipped),
    ]


def _answers(corner: str, cases: Sequence[str], columns: Sequence[Sequence[Answer]]) -> str:
    header = (corner, *(f"{case} (right: {column[0].right:.4g})" for case, column in zip(cases, columns, strict=True)))
    rows = ([first.implementation, *(_answer(c[at]) for c in columns)] for at, first in enumerate(columns[0]))
    return _grid(header, rows)


def _answer(answer: Answer) -> str:
    text = units.answer(answer)
    return f"**{text}**" if units.is_wrong(answer) else text


def _grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
