"""The report as Markdown: a table of clauses and targets, then the reasons. The same run gives the same text."""

import platform
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import NamedTuple

import gradclip
from gradclip.conformance.clauses import clauses
from gradclip.conformance.targets import Target

SUITE = "the suite itself"
"""The column of tests that run on no target."""

LONGEST = 200
"""Characters of a reason that are shown."""


class Outcome(Enum):
    """The outcome of a test. Its value is the text after the count in a cell."""

    FAILED = "failed"
    PASSED = "✓"
    EXCUSED = "excused"
    SKIPPED = "skipped"
    LEFT_OUT = "left out"


class Line(NamedTuple):
    """The outcome of one test on one target, also of a test that did not run. The reason is one line."""

    clause: str
    target: str
    test: str
    outcome: Outcome
    reason: str


class Run(NamedTuple):
    """The content of a report."""

    targets: Sequence[Target]
    lines: Sequence[Line]
    cases: Callable[[Target], int | None]
    chosen: str


SECTIONS = {
    Outcome.FAILED: "Defects, or what a target cannot do; the latter goes into an xfail file, by these names.",
    Outcome.EXCUSED: "What a target cannot do, by its xfail file. These tests ran and failed as expected.",
    Outcome.SKIPPED: "What a test found missing when it ran.",
    Outcome.LEFT_OUT: "Tests that do not apply to a target: it lacks a trait, or has one.",
}
"""The tables of reasons, in order."""


def markdown(run: Run) -> str:
    """Return the report."""
    names = [t.name for t in run.targets]
    if any(line.target == SUITE for line in run.lines):
        names.append(SUITE)
    parts = [
        "# The contract of gradclip, clause by clause",
        f"gradclip {gradclip.__version__}, Python {platform.python_version()}.",
        *([f"Only some of the tests were chosen: `{run.chosen}`."] if run.chosen else []),
        _targets(run),
        _counts(run.lines, names),
        *(_reasons(run.lines, names, outcome) for outcome in SECTIONS),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _targets(run: Run) -> str:
    def row(target: Target) -> list[str]:
        limit = run.cases(target)
        cases = "all" if limit is None else f"at most {limit} of each test"
        return [target.name, _versions(target), ", ".join(target.dtypes), ", ".join(sorted(target.traits)), cases]

    return _table(["target", "version", "dtypes", "traits", "cases"], map(row, run.targets))


def _versions(target: Target) -> str:
    """Return the versions of the packages of a target's functions and arrays, except gradclip's."""
    modules = [*target.name.partition("[")[0].split(":"), getattr(getattr(target, "xp", None), "__name__", "")]
    roots = dict.fromkeys(name.partition(".")[0] for name in modules)
    versions = {root: getattr(sys.modules.get(root), "__version__", None) for root in roots if root != "gradclip"}
    return ", ".join(f"{root} {version}" for root, version in versions.items() if version)


def _counts(lines: Iterable[Line], names: Sequence[str]) -> str:
    counts: dict[tuple[str, str], Counter[Outcome]] = defaultdict(Counter)
    for line in lines:
        if line.outcome is not Outcome.LEFT_OUT:
            counts[line.clause, line.target][line.outcome] += 1
    rows = [
        [clause.name, clause.title, *(_cell(counts[key, name]) for name in names)] for key, clause in clauses().items()
    ]
    totals = [sum((counts[key, name] for key in clauses()), Counter[Outcome]()) for name in names]
    return _table(["clause", "what it says", *names], [*rows, ["all", "", *map(_cell, totals)]])


def _cell(counts: Counter[Outcome]) -> str:
    words = {o: f"{counts[o]:,} {o.value}" for o in Outcome if counts[o]}
    if Outcome.FAILED in words:
        words[Outcome.FAILED] = f"**{words[Outcome.FAILED]}**"
    return ", ".join(words.values()) or "–"


def _reasons(lines: Iterable[Line], names: Sequence[str], outcome: Outcome) -> str:
    """Return the table of reasons for an outcome: tests that share clause, targets and reason are one row."""
    where: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for line in lines:
        if line.outcome is outcome:
            where[line.clause, line.reason, line.test].add(line.target)
    together: dict[tuple[str, tuple[int, ...], str], list[str]] = defaultdict(list)
    for (clause, reason, test), targets in sorted(where.items()):
        together[clause, tuple(sorted(map(names.index, targets))), reason].append(f"`{test}`")
    rows = [
        [clauses()[clause].name, ", ".join(tests), _where(targets, names), reason[:LONGEST]]
        for (clause, targets, reason), tests in sorted(together.items())
    ]
    if not rows:
        return ""
    head = f"## {outcome.name.capitalize().replace('_', ' ')}\n\n{SECTIONS[outcome]}\n\n"
    return head + _table(["clause", "tests", "targets", "reason"], rows)


def _where(targets: Sequence[int], names: Sequence[str]) -> str:
    every = [i for i, name in enumerate(names) if name != SUITE]
    return "all" if len(every) > 1 and list(targets) == every else ", ".join(names[i] for i in targets)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(map(_escaped, row)) + " |" for row in [head, ["---"] * len(head), *rows])


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
