"""What commands do with logs that cannot be read, or not wholly: no stack trace, and what can be read is read."""

import sys

import pytest

from gradclip._cli import logs
from tests.cli.histories import run, write

COMMANDS = [("suggest",), ("plot",), ("compare",), ("watch", "--once")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_a_log_without_norms_is_one_line_that_lists_the_columns(gradclip, tmp_path, command):
    path = tmp_path / "log.csv"
    path.write_text("step,loss,acc\n1,2,3\n")
    code, output, errors = gradclip(*command, path)
    assert (code, output) == (1, "")
    assert errors.startswith(f"gradclip: {path}: no column of gradient norms")
    assert "The columns are: acc, loss, step." in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_a_missing_file_is_one_line(gradclip, tmp_path, command):
    code, output, errors = gradclip(*command, tmp_path / "none")
    assert (code, output) == (1, "")
    assert errors == f"gradclip: {tmp_path / 'none'}: No such file or directory\n"


def test_notes_go_to_the_errors_with_the_line(gradclip, tmp_path):
    path = write(run(), tmp_path / "log.jsonl")
    with path.open("a") as file:
        file.write('{"step": 601, "grad')
    code, output, errors = gradclip("suggest", path)
    assert code == 0
    assert "max_norm = " in output
    assert errors == f"note: {path}: line 601: incomplete, at the end; left out\n"


@pytest.mark.parametrize(("package", "command"), [("matplotlib", "plot"), ("uniplot", "watch")])
def test_a_package_that_is_missing_is_named_with_its_extra(gradclip, tmp_path, monkeypatch, package, command):
    monkeypatch.setattr(logs, "find_spec", lambda name: None)
    code, output, errors = gradclip(command, tmp_path / "log")
    assert (code, output) == (1, "")
    assert errors.startswith(f"gradclip: this command needs {package}")
    assert 'pip install "gradclip[plot]"' in errors


def test_large_logs_have_a_progress_bar_on_a_terminal_only(gradclip, tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "PROGRESS_FROM_NBYTES", 1)
    path = write(run(), tmp_path / "log.jsonl")
    assert gradclip("suggest", path)[2] == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    code, output, errors = gradclip("suggest", path)
    assert code == 0
    assert "reading log.jsonl" in errors
    assert "reading" not in output


def test_ctrl_c_ends_without_a_stack_trace(gradclip, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["gradclip.monitor._files"], "read", interrupted)
    code, output, errors = gradclip("suggest", write(run(), tmp_path / "log.jsonl"))
    assert code != 0
    assert output == ""
    assert "Traceback" not in errors
