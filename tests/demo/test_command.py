"""The demo from outside: a whole run, every refusal, and what happens without its packages."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo.__main__ import main

ROOT = Path(__file__).parents[2]


def python(*arguments, cwd, **environment):
    """Run a fresh interpreter that finds this checkout, installed or not."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    plain = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "PY_COLORS"}}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**plain, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@pytest.fixture
def demo(monkeypatch, capsys):
    """Return the command as a function: arguments to exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["demo", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        output, errors = (re.sub(r"\x1b\[[0-9;]*m", "", text) for text in capsys.readouterr())
        return end.value.code or 0, output, errors

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole run, piped, with every warning of arithmetic an error."""
    folder = tmp_path_factory.mktemp("whole")
    command = ["-W", "error::RuntimeWarning", "-m", "demo", "--steps", "20", "--out", "figure.svg"]
    return folder, python(*command, cwd=folder, PYTHONIOENCODING="ascii")


def test_a_whole_run_succeeds_and_leaves_its_figure(whole):
    folder, result = whole
    assert (result.returncode, result.stderr) == (0, "")
    assert [path.name for path in folder.iterdir()] == ["figure.svg"]
    assert "Losses and gradient norms: figure.svg" in result.stdout


def test_a_piped_run_is_plain(whole):
    output = whole[1].stdout
    assert "\x1b" not in output
    assert "\r" not in output
    assert "died at step" in output
    for row in ("steps survived", "steps clipped", "largest norm", "final loss", "it writes"):
        assert row in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "many"], "--steps is many; expected a whole number, at least 1. Try --steps 1500."),
        (["--steps", "0"], "--steps is 0; expected a whole number, at least 1. Try --steps 1500."),
        (["--seed", "-1"], "--seed is -1; expected a whole number, at least 0."),
        (["--max-norm", "0"], "--max-norm is 0; expected a finite number greater than 0."),
        (["--max-norm", "big"], "--max-norm is big; expected a finite number greater than 0. Try --max-norm 1."),
        (["--max-norm", "nan"], "--max-norm is nan; expected"),
        (["--max-norm", "inf"], "--max-norm is inf; expected"),
        (["--max-value", "-1"], "--max-value is -1; expected"),
        (["--learning-rate", "0"], "--learning-rate is 0; expected"),
        (["--backend", "abacus"], "--backend abacus is not a backend; expected one of: numpy"),
        (["--text", "missing.txt"], "--text missing.txt: there is no such file."),
        (["--text", "empty.txt"], "--text empty.txt is empty; expected at least 2,080 characters."),
        (["--text", "short.txt"], "--text short.txt has 4 characters; expected at least 2,080."),
        (["--text", "."], "--text . is a folder; expected a text file."),
        (["--out", "demo.gif"], "--out demo.gif has the suffix '.gif'; expected one of .pdf, .png, .svg."),
        (["--out", "demo"], "--out demo has no suffix; expected one of .pdf, .png, .svg. Try --out demo.png."),
        (["--out", "nowhere/demo.png"], "--out nowhere/demo.png: there is no folder nowhere."),
        (["--out", "folder.png"], "--out folder.png is a folder; expected a file."),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(tmp_path, monkeypatch, demo, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    Path("short.txt").write_text("abcd")
    Path("folder.png").mkdir()
    code, stdout, stderr = demo(*arguments)
    assert (code, stdout) == (2, "")
    assert stderr.startswith(f"demo: {message}")
    assert len(stderr.splitlines()) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_figure_that_may_not_be_written_is_refused(tmp_path, demo):
    tmp_path.chmod(0o500)
    code, _, stderr = demo("--out", str(tmp_path / "demo.png"))
    assert code == 2
    assert "permission denied" in stderr


@pytest.mark.parametrize("arguments", [["--stepz", "3"], ["extra"]])
def test_unknown_words_are_an_error_of_usage(demo, arguments):
    code, stdout, stderr = demo(*arguments)
    assert (code, stdout) == (2, "")
    assert "Usage: python -m demo" in stderr


def test_errors_from_outside_have_no_stack_trace(tmp_path):
    result = python("-m", "demo", "--text", "missing.txt", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "demo: --text missing.txt: there is no such file. Check the path, or leave --text out."
    ]


def test_help_names_every_option_and_its_default(demo):
    code, stdout, _ = demo("--help")
    assert code == 0
    for option in ("--text", "--max-norm", "--max-value", "--learning-rate", "--steps", "--seed", "--out", "--backend"):
        assert option in stdout
    for default in ("1.0", "0.01", "2.0", "1500", "demo.png", "numpy"):
        assert f"[default: {default}]" in stdout


def test_without_its_packages_it_names_the_remedy(tmp_path):
    absent = "import sys; sys.modules |= dict.fromkeys(['typer', 'rich', 'matplotlib'])"
    result = python("-c", f"{absent}\nfrom demo.__main__ import main\nmain()", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        'demo: typer, rich, matplotlib not installed; run: make demo, or: pip install -e ".[demo]"\n'
    )


def test_a_backend_whose_framework_is_not_installed(demo, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # which makes its import fail
    monkeypatch.delitem(sys.modules, "demo.rnn_torch", raising=False)
    code, _, errors = demo("--backend", "torch")
    assert code == 2
    assert (
        'torch, which is not installed. Install it by pip install "gradclip[torch]", or try --backend numpy.' in errors
    )
