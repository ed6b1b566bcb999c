"""The command from outside, and what happens without its packages."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gradclip import __version__
from gradclip._cli import doctor, selfcheck

ROOT = Path(__file__).parents[2]


def python(*arguments):
    """Run a fresh interpreter that finds this checkout, installed or not."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_version_and_help(gradclip):
    assert gradclip("--version")[1] == f"gradclip {__version__}\n"
    for command in ("doctor", "suggest", "plot", "compare", "watch"):
        assert command in gradclip("--help")[1]
        assert f"gradclip {command}" in gradclip(command, "--help")[1]


def test_doctor_ends_well(gradclip, monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", {"numpy": selfcheck.CHECKS["numpy"]})
    code, output, _ = gradclip("doctor")
    assert code == 0
    assert output.startswith("Versions\n")
    assert __version__ in output.splitlines()[1]
    code, output, _ = gradclip("doctor", "--json")
    found = json.loads(output)
    assert (code, found["ok"]) == (0, True)
    assert found["versions"]["gradclip"] == {"text": __version__, "state": "ok"}
    assert found["self-check"]["numpy"]["state"] == "ok"


def test_doctor_ends_with_1_if_a_result_is_wrong(gradclip, monkeypatch):
    right = selfcheck.CHECKS["numpy"]()
    wrong = replace(right, read=lambda x: right.read(x) * (1 + 1e-5))
    monkeypatch.setattr(doctor, "CHECKS", {"numpy": None})
    monkeypatch.setitem(selfcheck.CHECKS, "numpy", lambda: wrong)
    code, output, _ = gradclip("doctor")
    assert code == 1
    assert "exact results are not met; the first: global_norm" in output
    code, output, _ = gradclip("doctor", "--json")
    assert (code, json.loads(output)["ok"]) == (1, False)


@pytest.mark.parametrize("arguments", [["doctor", "--deep"], ["doctor", "extra"], ["demo"]])
def test_unknown_words_are_an_error_of_usage(gradclip, arguments):
    code, output, errors = gradclip(*arguments)
    assert (code, output) == (2, "")
    assert "Usage: gradclip" in errors


def test_without_the_extra_it_names_the_remedy():
    absent = "import sys; sys.modules |= dict.fromkeys(['rich', 'typer'])"
    result = python("-c", f"{absent}\nfrom gradclip._cli import main\nmain()")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "gradclip: the command line needs rich, typer, which the extra 'cli' installs: pip install \"gradclip[cli]\"\n"
    )


def test_the_library_and_the_entry_import_nothing_of_the_extra():
    result = python("-c", "import sys, gradclip, gradclip._cli; sys.exit(bool({'typer', 'rich'} & sys.modules.keys()))")
    assert (result.returncode, result.stderr) == (0, "")
