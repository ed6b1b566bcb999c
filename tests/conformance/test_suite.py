"""The suite's options: namespaces that nobody has heard of, adapters, and excuses that have to be right."""

from pathlib import Path

import pytest

from gradclip.conformance import excuses
from tests.conformance.suite import run

ONE = ["test_01_definition.py"]
BINDING = """
from types import SimpleNamespace

import numpy

from gradclip.conformance.adapters import Offered
from gradclip.conformance.targets import NamespaceTarget


def targets(module, name):
    functions = SimpleNamespace(clip_by_global_norm=module.clipped)
    yield NamespaceTarget(numpy, Offered(functions, name), name, ["eager", "quick", "large"])
"""


def test_unknown_namespace(tmp_path: Path) -> None:
    """Any module that can be imported and makes arrays is a namespace; what it can do is found out."""
    (tmp_path / "unheard_of.py").write_text("from array_api_strict import *\nfrom array_api_strict import asarray\n")
    done = run("--namespace", "unheard_of", files=["test_00_targets.py", "test_12_in_place.py"], path=tmp_path)
    assert done.returncode == 0, done.stdout


def test_namespace_that_is_not_there() -> None:
    """A namespace that was asked for and cannot be imported is an error, not a skip."""
    done = run("--namespace", "there_is_no_such_module", files=ONE)
    assert done.returncode == 4
    assert "--namespace there_is_no_such_module" in done.stderr


def test_from_another_folder(tmp_path: Path) -> None:
    """Third parties run it from where they are, by their own configuration."""
    done = run("--namespace", "numpy", "--rootdir", str(tmp_path), files=["test_00_targets.py"], cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_excuse_for_what_passes(tmp_path: Path) -> None:
    """An excused test that passes fails the run."""
    file = tmp_path / "mine.txt"
    file.write_text("# a comment\n\ntest_01_definition.py::test_norm_dtype[float32]  # it is said to fail\n")
    done = run("--namespace", "numpy", "--xfails", str(file), "-k", "test_norm_dtype", files=ONE)
    assert done.returncode == 1
    assert "1 failed" in done.stdout


def test_excuse_without_reason(tmp_path: Path) -> None:
    """An excuse has a reason."""
    file = tmp_path / "mine.txt"
    file.write_text("test_01_definition.py::test_norm_dtype[float32]\n")
    done = run("--namespace", "numpy", "--xfails", str(file), files=ONE)
    assert done.returncode == 4
    assert "has no reason" in done.stderr


def test_excuse_for_nothing(tmp_path: Path) -> None:
    """An excuse for a test that there is not is refused, if all tests were there to look at."""
    file = tmp_path / "mine.txt"
    file.write_text("test_01_definition.py::test_that_was_renamed*  # long ago\n")
    whole = run("--namespace", "numpy", "--xfails", str(file), "--collect-only")
    assert whole.returncode == 4
    assert "test_that_was_renamed" in whole.stderr
    pytest.importorskip("xdist")
    many = run("--namespace", "numpy", "--xfails", str(file), "-n", "1")
    assert many.returncode == 4
    assert "test_that_was_renamed" in many.stdout
    assert run("--namespace", "numpy", "--xfails", str(file), "--collect-only", files=ONE).returncode == 0


def test_adapter_without_binding() -> None:
    """An adapter needs a file that binds it, or the namespace of its arrays."""
    done = run("--adapter", "gradclip", "--collect-only", files=ONE)
    assert done.returncode == 4
    assert "pass the namespace of its arrays as --namespace" in done.stderr
    assert run("--adapter", "gradclip", "--namespace", "numpy", files=["test_00_targets.py"]).returncode == 0


def test_adapter_that_offers_less(tmp_path: Path) -> None:
    """Tests of functions that an adapter does not offer are skipped, and say so."""
    (tmp_path / "small.py").write_text("from gradclip import clip_by_norm\n")
    done = run(
        "--adapter",
        "small",
        "--namespace",
        "numpy",
        "-k",
        "test_by_norm or test_by_rms",
        files=["test_01_definition_of_clips.py"],
        path=tmp_path,
    )
    assert done.returncode == 0, done.stdout
    assert "small does not offer clip_by_rms" in done.stdout
    assert "passed" in done.stdout


def test_adapter_with_names_of_its_own(tmp_path: Path) -> None:
    """A module that is not of the suite binds it; the tests that start another process find it too."""
    (tmp_path / "theirs.py").write_text("from gradclip import clip_by_global_norm as clipped\n")
    (tmp_path / "bound").mkdir()
    (tmp_path / "bound" / "theirs.py").write_text(BINDING)
    files = ["test_00_targets.py", "test_16_determinism.py"]
    done = run("--adapter", "theirs:bound.theirs", "-k", "round_trip or processes", files=files, path=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
    done = run("--adapter", "theirs:nothing.here", "--collect-only", files=ONE, path=tmp_path)
    assert done.returncode == 4
    assert "nothing binds it to the suite" in done.stderr


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("test_a.py::test_b[float32]", "test_a.py::test_b[float32]", True),
        ("test_a.py::test_b[float32]", "test_a.py::test_b[float32-1.0]", False),
        ("test_a.py::test_b[*float16*]", "test_a.py::test_b[bfloat16-2^-99]", True),
        ("test_a.py::test_b*", "test_a.py::test_b", True),
        ("test_a.py::test_[b]", "test_a.py::test_b", False),
    ],
)
def test_patterns(pattern: str, name: str, matches: bool) -> None:
    """Only the asterisk is special: brackets are common in the names of tests."""
    assert excuses.Excuse(Path("file.txt"), 1, pattern, "a reason").matches(name) is matches


def test_every_line_of_every_file_has_a_reason() -> None:
    """The committed excuses can be read."""
    for file in excuses.FOLDER.glob("*.txt"):
        assert all(excuse.reason for excuse in excuses.read(file))
