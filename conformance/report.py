"""``--report FILE.md``: collects the outcome of each test, also from workers of pytest-xdist, and writes the report."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from gradclip.conformance import report_text
from gradclip.conformance.clauses import key_of
from gradclip.conformance.excuses import short_name
from gradclip.conformance.notes import is_worker, notes
from gradclip.conformance.report_text import SUITE, Line, Outcome, Run
from gradclip.conformance.targets import Target

LEFT_OUT = "left out"


def start(config: pytest.Config, targets: Callable[[], Sequence[Target]]) -> None:
    """Collect outcomes if a report was requested.

    Raises
    ------
    pytest.UsageError
        If the folder of the report does not exist.
    """
    if not config.getoption("report"):
        return
    file = Path(config.getoption("report"))
    if not file.parent.is_dir():
        raise pytest.UsageError(f"--report {file}: there is no folder {file.parent}")
    if not is_worker(config):
        config.pluginmanager.register(Report(config, file, targets))


def leave_out(config: pytest.Config, test: str, target: str, lacking: Iterable[str]) -> None:
    """Note that a test does not run on a target, which lacks traits, or has a trait that is written with ``!``."""
    for trait in lacking:
        why = f"for targets without the trait {trait[1:]!r}" if trait.startswith("!") else f"needs the trait {trait!r}"
        notes(config, LEFT_OUT).add((test, target, why))


class Report:
    """Collects the outcomes of a run, and writes them when it is complete."""

    def __init__(self, config: pytest.Config, file: Path, targets: Callable[[], Sequence[Target]]) -> None:
        self._config = config
        self._file = file
        self._targets = targets
        self._reports: dict[str, pytest.TestReport] = {}
        self._written = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":  # set-up and tear-down count if they did not pass
            self._reports[report.nodeid] = report

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        complete = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not session.shouldfail
        if complete:
            self._file.write_text(report_text.markdown(self._run()), encoding="utf-8")
        self._written = complete

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        said = f"the report is in {self._file}" if self._written else "no report: the run is not complete"
        terminalreporter.write_line(said)

    def _run(self) -> Run:
        targets = {t.name: t for t in self._targets()}
        lines = [line for r in self._reports.values() if (line := _line(r, list(targets)))]
        left_out = [
            Line(str(key_of(test.partition("::")[0])), name, test.partition("::")[2], Outcome.LEFT_OUT, why)
            for test, name, why in notes(self._config, LEFT_OUT)
        ]
        return Run(list(targets.values()), [*lines, *left_out], _cases(self._config), _chosen(self._config))


def _line(report: pytest.TestReport, targets: Sequence[str]) -> Line | None:
    """Return the outcome of a test of the suite; None for other tests."""
    file, test = report.location[0], report.nodeid.partition("::")[2]  # the id need not contain the file
    key = key_of(Path(file).name)
    if key is None:
        return None
    function, _, case = test.partition("[")
    target = next((t for t in targets if case.startswith((f"{t}-", f"{t}]"))), SUITE)
    outcome, reason = _outcome(report)
    name = short_name(file, test, target) if outcome is Outcome.FAILED else function  # as an xfail file has it
    return Line(key, target, name, outcome, reason.strip().partition("\n")[0])


def _outcome(report: pytest.TestReport) -> tuple[Outcome, str]:
    said = report.longrepr
    if report.outcome == "passed":
        return Outcome.PASSED, ""
    if report.outcome == "skipped" and hasattr(report, "wasxfail"):
        return Outcome.EXCUSED, str(report.wasxfail).removeprefix("reason: ")
    if report.outcome == "skipped":
        return Outcome.SKIPPED, str(said[2] if isinstance(said, tuple | list) else said).removeprefix("Skipped: ")
    crash = getattr(said, "reprcrash", None)
    return Outcome.FAILED, crash.message if crash else str(said)


def _cases(config: pytest.Config) -> Callable[[Target], int | None]:
    """Return how many cases of each test a target runs at most."""
    if config.getoption("every"):
        return lambda _: None
    return lambda target: config.getoption("cases") or target.cases


def _chosen(config: pytest.Config) -> str:
    """Return the options that chose some of the tests."""
    options = {"-k": "keyword", "-m": "markexpr", "--deselect": "deselect"}
    return ", ".join(f"{o} {config.getoption(name)}" for o, name in options.items() if config.getoption(name, None))
