"""Writers: files that survive a crash and a resumed run."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gradclip.monitor._writers import writer_of

ROOT = Path(__file__).parents[2]


def steps(first: int, count: int, **more: float) -> list[tuple[int, dict[str, float]]]:
    return [(step, {"grad_norm": 1.5 * step, **more}) for step in range(first, first + count)]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_json_lines(tmp_path):
    path = tmp_path / "norms.jsonl"
    writer_of(path).write([*steps(0, 2), (2, {"grad_norm": math.nan, "gradclip/max_norm": math.inf})])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[1] == {"step": 1, "grad_norm": 1.5}
    assert lines[2] == {"step": 2, "grad_norm": "nan", "gradclip/max_norm": "inf"}


def test_csv(tmp_path):
    path = tmp_path / "norms.csv"
    writer_of(str(path)).write(steps(0, 2, loss=math.nan))
    assert path.read_text() == "step,grad_norm,loss\n0,0.0,nan\n1,1.5,nan\n"


def test_a_csv_file_gets_columns_that_come_later(tmp_path):
    path = tmp_path / "norms.csv"
    writer = writer_of(path)
    writer.write(steps(0, 2))
    writer.write([(2, {"grad_norm": 3.0, 'grad_norm/a "name", with all': 7.0}), (3, {})])
    writer.write(steps(4, 1))
    rows = rows_of(path)
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row['grad_norm/a "name", with all'] for row in rows] == ["", "", "7.0", "", ""]
    assert [row["grad_norm"] for row in rows] == ["0.0", "1.5", "3.0", "", "6.0"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_resumed_run_appends(tmp_path, suffix):
    path = tmp_path / f"norms.{suffix}"
    writer_of(path).write(steps(0, 3))
    writer_of(path).write(steps(2, 3))
    text = path.read_text()
    if suffix == "jsonl":
        assert [json.loads(line)["step"] for line in text.splitlines()] == [0, 1, 2, 2, 3, 4]
    else:
        assert [row["step"] for row in rows_of(path)] == ["0", "1", "2", "2", "3", "4"]
        assert text.count("grad_norm") == 1


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_line_that_a_crash_left_incomplete_is_ended(tmp_path, suffix):
    path = tmp_path / f"norms.{suffix}"
    writer_of(path).write(steps(0, 2))
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 3)
    writer_of(path).write(steps(2, 1))
    lines = path.read_text().splitlines()
    assert lines[-1] in {'{"step": 2, "grad_norm": 3.0}', "2,3.0"}
    assert len(lines) == (3 if suffix == "jsonl" else 4)


CRASHES = """
import os, signal, sys
from gradclip.monitor import NormMonitor
monitor = NormMonitor(writers=[sys.argv[1]], fetch_every=10)
for step in range(25):
    monitor.record(float(step))
if sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
raise RuntimeError("the training failed")
"""


@pytest.mark.parametrize(("how", "written"), [("kill", 20), ("raise", 25)])
def test_what_a_process_wrote_survives_its_end(tmp_path, how, written):
    path = tmp_path / "norms.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", CRASHES, path, how], capture_output=True, text=True, env=environment)
    assert done.returncode == (-signal.SIGKILL if how == "kill" else 1), done.stderr
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(written))


class Board:
    def __init__(self):
        self.seen = []

    def add_scalar(self, tag, scalar_value, global_step):
        self.seen.append((tag, scalar_value, global_step))


def test_add_scalar_is_called():
    board = Board()
    writer_of(board).write(steps(3, 1, loss=2.0))
    assert board.seen == [("grad_norm", 4.5, 3), ("loss", 2.0, 3)]


def test_a_writer_that_can_be_flushed_is_flushed():
    class Flushed(Board):
        flushed = 0

        def flush(self):
            self.flushed += 1

    board = Flushed()
    writer_of(board).write(steps(0, 2))
    assert board.flushed == 1


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ("norms.txt", ValueError, r"has the suffix '.txt', expected .jsonl or .csv"),
        ("no/such/folder/norms.csv", ValueError, "is in a folder that is not there"),
        (3, TypeError, "a writer is an int, expected a path"),
    ],
)
def test_what_cannot_be_written_to_is_refused(target, error, words):
    with pytest.raises(error, match=words):
        writer_of(target)
