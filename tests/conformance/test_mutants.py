"""For every clause, the suite finds a defect that was built in for it."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conformance.mutants import BEGINNING, MUTANTS
from tests.conformance.suite import SUITE, run

READS = """
def global_norm(grads, *, ord=2.0):
    norm = gradclip.global_norm(grads, ord=ord)
    return norm if float(norm) else norm
"""


def _failures(clauses: Sequence[str], folder: Path) -> Counter[str]:
    """Return how many tests of a clause's own files failed, by mutant."""
    for clause in clauses:
        (folder / f"mutant_{clause}.py").write_text(BEGINNING + MUTANTS[clause])
    adapters = [word for clause in clauses for word in ("--adapter", f"mutant_{clause}")]
    files = sorted(file.name for clause in clauses for file in SUITE.glob(f"test_{clause[:2]}_*.py"))
    own = " or ".join(f"(mutant_{clause} and test_{clause[:2]})" for clause in clauses)
    report = folder / f"{clauses[0]}.xml"
    chosen = ["--cases", "4", "-k", f"({own}) and not million and not billion", f"--junitxml={report}"]
    done = run(*adapters, "--namespace", "numpy", *chosen, files=files, path=folder)
    assert done.returncode == 1, done.stdout + done.stderr
    failed = [case for case in ET.parse(report).iter("testcase") if case.find("failure") is not None]
    return Counter(case.get("name", "").partition("[mutant_")[2].partition(":")[0] for case in failed)


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """Return how many tests of its own clause each mutant fails. A few mutants share a run."""
    folder, clauses = tmp_path_factory.mktemp("mutants"), list(MUTANTS)
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(_failures, [clauses[i : i + 4] for i in range(0, len(clauses), 4)], [folder] * len(clauses))
        return sum(runs, Counter())


@pytest.mark.parametrize("clause", MUTANTS)
def test_is_found(clause: str, failures: Counter[str]) -> None:
    """The defect makes tests of its own clause fail."""
    assert failures[clause] > 0


def test_reading_is_found(tmp_path: Path) -> None:
    """Clause 13: a value that is read from a lazy array."""
    (tmp_path / "mutant_13_lazy.py").write_text(BEGINNING + READS)
    pytest.importorskip("dask.array")
    done = run("--adapter", "mutant_13_lazy", "--namespace", "dask.array", files=["test_13_lazy.py"], path=tmp_path)
    assert "FAILED" in done.stdout
    assert "test_norms_are_deferred" in done.stdout
