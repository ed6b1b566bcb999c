"""``gradclip suggest``."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradclip.monitor import suggest
from tests.cli.histories import run, write

DATA = Path(__file__).parents[1] / "monitor" / "files" / "data"


def test_it_says_what_suggest_says_and_shows_percentiles(gradclip, tmp_path):
    history = run()
    path = write(history, tmp_path / "log.jsonl")
    found = suggest(history)
    code, output, errors = gradclip("suggest", path)
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0] == f"{path}  600 steps"
    assert abs(float(lines[1].removeprefix("max_norm = ")) / found.max_norm - 1) < 0.005
    assert found.reason in output
    assert lines[-2].split() == ["1", "%", "10", "%", "50", "%", "90", "%", "95", "%", "99", "%", "max"]


def test_json_is_one_object_a_file(gradclip, tmp_path):
    history = run()
    path = write(history, tmp_path / "log.jsonl")
    code, output, _ = gradclip("suggest", path, path, "--json", "--share", 0.1)
    one, two = map(json.loads, output.splitlines())
    assert code == 0
    assert one == two
    found = suggest(history, share=0.1)
    assert (one["file"], one["steps"], one["nonfinite"], one["share"]) == (str(path), 600, 2, 0.1)
    assert (one["max_norm"], one["reason"]) == (found.max_norm, found.reason)
    assert one["percentiles"]["50"] == np.percentile(history.norm[np.isfinite(history.norm)], 50)


def test_a_file_that_cannot_be_read_does_not_stop_the_others(gradclip, tmp_path):
    path = write(run(), tmp_path / "log.jsonl")
    code, output, errors = gradclip("suggest", tmp_path / "none", path)
    assert code == 1
    assert "max_norm = " in output
    assert errors.count("\n") == 1


def test_a_narrow_terminal_cuts_nothing(gradclip, tmp_path, monkeypatch):
    path = write(run(), tmp_path / "log.jsonl")
    monkeypatch.setenv("COLUMNS", "60")
    output = gradclip("suggest", path)[1]
    assert "…" not in output
    assert max(map(len, output.splitlines()[-2:])) <= 60


def test_in_a_very_narrow_terminal_each_percentile_has_a_line(gradclip, tmp_path, monkeypatch):
    path = write(run(), tmp_path / "log.jsonl")
    titles, values = (line.replace(" %", "%").split() for line in gradclip("suggest", path)[1].splitlines()[-2:])
    monkeypatch.setenv("COLUMNS", "20")
    lines = gradclip("suggest", path)[1].splitlines()[-len(titles) :]
    assert [line.replace(" %", "%").split() for line in lines] == [list(x) for x in zip(titles, values, strict=True)]


@pytest.mark.parametrize("share", ["0", "1", "1.5", "nan"])
def test_a_share_that_is_none_is_an_error_of_usage(gradclip, tmp_path, share):
    code, output, errors = gradclip("suggest", write(run(), tmp_path / "log.jsonl"), "--share", share)
    assert (code, output) == (2, "")
    assert f"{share} is not greater than 0 and less than 1" in " ".join(errors.split())


def test_it_loads_no_framework_and_no_plotting():
    code = (
        "import sys, atexit\n"
        "heavy = {'torch', 'jax', 'matplotlib', 'uniplot', 'tensorboard', 'optax'}\n"
        f"sys.argv = ['gradclip', 'suggest', {str(DATA / 'trainer_state.json')!r}]\n"
        "from gradclip._cli import main\n"
        "try: main()\n"
        "finally: assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=DATA.parents[3], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
