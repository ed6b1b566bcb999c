"""``gradclip watch``."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.histories import run, write

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("columns", [60, 120])
def test_once_shows_the_plot_as_wide_as_the_terminal(gradclip, tmp_path, monkeypatch, columns):
    path = write(run(), tmp_path / "log.jsonl")
    monkeypatch.setenv("COLUMNS", str(columns))
    code, output, errors = gradclip("watch", path, "--once")
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0] == "log.jsonl: gradient norm"
    assert columns - 14 < max(map(len, lines)) <= columns
    assert "norm  clipped or skipped  max_norm" in lines
    assert "\x1b" not in output
    assert "NaN or inf 2" in output.replace("\n", " ")


def test_only_the_last_steps(gradclip, tmp_path):
    output = gradclip("watch", write(run(), tmp_path / "log.jsonl"), "--once", "--last", 50)[1]
    assert "step 600" in output
    assert "200" not in output


# A shell lets what it runs in the background ignore Ctrl-C, and a test run in the background hands that on to what it
# starts. So the handler, which Python installs only where Ctrl-C is not ignored, is installed first.
START = """import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("gradclip", run_name="__main__", alter_sys=True)"""


def watching(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", START, "watch", *map(str, arguments), "--every", "0.05"]
    return subprocess.Popen(
        command, env={**environment, **options}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_without_a_terminal_each_change_is_a_line_until_ctrl_c(tmp_path):
    path = tmp_path / "log.txt"
    with watching(path) as process:
        time.sleep(0.3)
        path.write_text("step 1 grad_norm 0.5\n")
        assert process.stdout.readline() == "step 1  norm 0.5  median 0.5\n"
        with path.open("a") as file:
            file.write("step 2 grad_norm 1.5\n")
        assert process.stdout.readline() == "step 2  norm 1.5  median 1\n"
        process.send_signal(2)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "", "")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="pseudo-terminals are a Unix thing")
@pytest.mark.parametrize("no_color", [False, True])
def test_on_a_terminal_it_draws_with_colours_unless_they_are_unwanted(tmp_path, no_color):
    path = write(run(), tmp_path / "log.jsonl")
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "30"} | (
        {"NO_COLOR": "1"} if no_color else {}
    )
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", START, "watch", str(path)]
    with subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while b"median" not in shown:
            shown += os.read(ours, 65536)
        process.send_signal(2)
        assert process.wait(60) == 0
    os.close(ours)
    assert (b"\x1b[34m" in shown) != no_color
    assert b"Traceback" not in shown
