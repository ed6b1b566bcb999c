"""The report: a real small run, and its text."""

import re
from pathlib import Path
from typing import Any

import pytest

from gradclip.conformance.report_text import SUITE, Line, Outcome, Run, markdown
from tests.conformance.suite import run

ADAPTER = """
import numpy as np
import gradclip
from gradclip import clip_by_norm

def clip_by_value(grads, max_value, *, min_value=None):
    clipped = gradclip.clip_by_value(grads, max_value, min_value=min_value)
    return clipped if isinstance(clipped, list) else np.nan_to_num(clipped, posinf=np.inf, neginf=-np.inf)
"""
EXCUSE = "test_10_by_value.py::test_any_values  # NaN becomes 0\n"
ONCE = """
import sys
from pathlib import Path

def pytest_sessionfinish():
    files = [Path(m.__file__).resolve() for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
    suite = [file for file in files if "conformance" in file.parts and file.name != "__init__.py"]
    assert suite and len(suite) == len(set(suite))
"""


def _report(folder: Path, *options: str) -> str:
    """Return the report of a run on an adapter that has two functions, one of them with a defect."""
    (folder / "mine.py").write_text(ADAPTER)
    (folder / "mine.txt").write_text(EXCUSE)
    arguments = ["--adapter", "mine", "--namespace", "numpy", "--cases", "3", "--xfails", str(folder / "mine.txt")]
    files = ["test_01_definition_of_clips.py", "test_10_by_value.py"]
    done = run(*arguments, "--report", str(folder / "out.md"), *options, files=files, path=folder)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"the report is in {folder / 'out.md'}" in done.stdout
    return (folder / "out.md").read_text()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _report(tmp_path_factory.mktemp("report"))


def _rows(report: str, clause: str) -> list[str]:
    return [line for line in report.splitlines() if line.startswith(f"| {clause} |")]


def test_counts(report: str) -> None:
    """A cell has how many passed, failed, were excused or skipped; a dash stands where nothing ran."""
    assert re.search(r"\| \d+ ✓, \d+ skipped \|$", _rows(report, "1")[0])
    assert re.search(r"\| \*\*\d+ failed\*\*, \d+ ✓, 1 excused, \d+ skipped \|$", _rows(report, "10")[0])
    assert _rows(report, "16")[0].endswith("any number of threads | – |")
    assert "| at most 3 of each test |" in report


def test_reasons(report: str) -> None:
    """Below the table stands why."""
    assert "| 10 | `test_any_values` | mine:numpy | NaN becomes 0 |" in report
    assert "| 1 | `test_by_rms` | mine:numpy | mine does not offer clip_by_rms |" in report
    assert "| 10 | `test_10_by_value.py::test_" in report
    assert "| 1 | `test_" in report.partition("## Skipped")[2]


def test_processes_of_xdist_write_the_same(report: str, tmp_path: Path) -> None:
    """Results and what is left out come from other processes."""
    pytest.importorskip("xdist")
    assert _report(tmp_path, "-n", "2") == report


def test_no_report_of_a_run_that_stopped(tmp_path: Path) -> None:
    """Nothing is written that could be taken for the whole."""
    file = tmp_path / "out.md"
    (tmp_path / "mine.py").write_text(ADAPTER)
    done = run(
        "--adapter",
        "mine",
        "--namespace",
        "numpy",
        "-x",
        "--report",
        str(file),
        files=["test_10_by_value.py"],
        path=tmp_path,
    )
    assert "no report: the run is not complete" in done.stdout
    assert not file.exists()


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    """It is told before anything runs."""
    done = run("--namespace", "numpy", "--report", str(tmp_path / "none" / "out.md"), files=["test_00_targets.py"])
    assert done.returncode == 4
    assert "there is no folder" in done.stderr


@pytest.mark.parametrize("options", [[], ["--doctest-modules"]], ids=["tests", "doctests"])
def test_no_module_is_imported_under_two_names(options: list[str], tmp_path: Path) -> None:
    """In a clone the suite's folder is found by two ways; only its empty `__init__` is imported by both."""
    (tmp_path / "once.py").write_text(ONCE)
    done = run("-p", "once", "--namespace", "numpy", "-k", "test_float32", *options, path=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


class _Target:
    dtypes = ("float32",)
    traits = frozenset({"eager"})
    cases = None

    def __init__(self, name: str) -> None:
        self.name = name


def _text(*lines: Line) -> str:
    targets: list[Any] = [_Target("numpy"), _Target("torch")]
    return markdown(Run(targets, lines, lambda target: target.cases, ""))


def test_text_does_not_depend_on_the_order() -> None:
    """Processes finish in any order."""
    lines = [Line("03", t, f"test_{i}", Outcome.SKIPPED, "none") for t in ("torch", "numpy") for i in range(3)]
    assert _text(*lines) == _text(*reversed(lines))
    assert "| 3 | `test_0`, `test_1`, `test_2` | all | none |" in _text(*lines)


def test_pipes_do_not_break_the_table() -> None:
    """Those in reasons and in titles are escaped."""
    text = _text(
        Line("01", "numpy", "test_a", Outcome.FAILED, "a | b"), Line("01", SUITE, "test_b", Outcome.PASSED, "")
    )
    assert "| 1 | `test_a` | numpy | a \\| b |" in text
    row = _rows(text, "1")[0]
    assert row.endswith("\\|z\\| for complex | **1 failed** | – | 1 ✓ |")
