"""Logs that real tools wrote: the norms are those that the tools were given. Faults: what can be read is read."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradclip.monitor import NormMonitor, ReadError, read
from tests.monitor.files.logs import DATA, TRUE, read_text

EPS32 = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize(
    ("file", "tool", "steps", "error"),
    [
        ("trainer_state.json", "transformers", range(1, 31), 4 * EPS32),
        ("transformers.tfevents", "transformers", range(1, 31), 4 * EPS32),
        ("lightning.csv", "lightning", range(60), 4 * EPS32),
        ("resumed.tfevents", "tensorboard", range(30), 0),
        ("mlflow.csv", "mlflow", range(30), 0),
    ],
)
def test_a_real_log_holds_the_norms_that_the_tool_computed(file, tool, steps, error):
    history = read(DATA / file, on_note=lambda text: None)
    assert history.step.tolist() == list(steps)
    np.testing.assert_allclose(history.norm, TRUE[tool], rtol=error, atol=0)


def test_transformers_losses_are_read_and_nothing_else_is_said():
    notes = []
    history = read(DATA / "trainer_state.json", on_note=notes.append)
    rows = json.loads((DATA / "trainer_state.json").read_text())["log_history"]
    assert history.loss.tolist() == [row["loss"] for row in rows if "loss" in row]
    assert (history.max_norm, history.clipped, history.skipped, history.parameters, notes) == (None, None, None, {}, [])


def test_lightning_has_norms_of_parameters_whose_squares_add_up_and_rows_with_blanks():
    history = read(DATA / "lightning.csv")
    assert list(history.parameters) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    total = np.sqrt(sum(values**2 for values in history.parameters.values()))
    np.testing.assert_allclose(total, history.norm, rtol=4 * EPS32)
    assert np.isfinite(history.loss).all()
    assert read(DATA / "lightning.csv", parameters=False).parameters == {}


def test_an_export_of_wandb_has_a_column_a_run_and_columns_of_extremes():
    notes = []
    history = read(DATA / "wandb.csv", on_note=notes.append)
    np.testing.assert_array_equal(history.step, [1, 2, 4, 5, 6])
    np.testing.assert_array_equal(history.norm, [2.25, 1.75, np.nan, np.inf, 0.5])
    first, second = "'brave-sun-7 - train/grad_norm'", "'calm-sea-8 - train/grad_norm'"
    assert notes == [f"{first} is read; other norms: {second}; choose with --norm"]
    other = read(DATA / "wandb.csv", norm="calm-sea-8 - train/grad_norm")
    assert (other.step.tolist(), other.norm.tolist()) == ([1, 2, 5, 6], [4.5, 3.5, 1.25, 1.0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        ("step,loss,acc\n1,2,3\n", r"no column of gradient norms.*The columns are: acc, loss, step\..*--norm"),
        ('{"step": 1, "loss": 2}\n', r"The columns are: loss, step\."),
        ("step,grad_norm\n", "column 'grad_norm' holds no norm"),
        ("it=3 G 0.5\n", r"not a format that is known:.*--pattern"),
        (bytes(range(256)) * 9, "not a format that is known"),
        ('{\n "a": 1\n}\n', 'a JSON document without a list "log_history"'),
    ],
)
def test_a_log_without_norms_gets_an_error_that_says_what_there_is(tmp_path, text, message):
    with pytest.raises(ReadError, match=f"{re.escape(str(tmp_path))}.*{message}"):
        read_text(tmp_path, text)


def test_a_column_that_is_not_there_is_named_beside_those_that_are(tmp_path):
    with pytest.raises(ReadError, match=r"column 'gn' is not there. The columns are: acc, step"):
        read_text(tmp_path, "step,acc\n1,2\n", norm="gn")
    assert read_text(tmp_path, "step,acc\n1,2\n", norm="acc")[0].norm.tolist() == [2.0]


def test_a_missing_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


def test_notes_are_warnings_unless_they_are_asked_for(tmp_path):
    path = tmp_path / "log"
    path.write_text("step,grad_norm\n2,1\n1,3\n")
    with pytest.warns(UserWarning, match="line 3: step 1 comes after step 2; the steps are sorted"):
        history = read(path)
    assert (history.step.tolist(), history.norm.tolist()) == ([1, 2], [3.0, 1.0])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings_of_windows(tmp_path, encoding):
    history, notes = read_text(tmp_path, "step;grad_norm\r\n3;1\r\n4;2\r\n".encode(encoding))
    assert (history.step.tolist(), history.norm.tolist(), notes) == ([3, 4], [1.0, 2.0], [])


def test_what_the_monitor_writes_is_read_with_all_that_it_holds(tmp_path):
    rows = [
        {
            "step": step,
            "loss": 3.0 - step,
            "grad_norm": [0.5, "nan", 4.0][step],
            "gradclip/max_norm": 2.0,
            "gradclip/coefficient": [1.0, 1.0, 0.5][step],
            "gradclip/clipped": float(step == 2),
            "gradclip/skipped": float(step == 1),
            "grad_norm/layer.weight": 0.25 * step,
        }
        for step in range(3)
    ]
    header = ",".join(rows[0])
    table = "\n".join(",".join(map(str, row.values())) for row in rows)
    for text in ("".join(json.dumps(row) + "\n" for row in rows), f"{header}\n{table}\n"):
        history, notes = read_text(tmp_path, text)
        assert notes == []
        np.testing.assert_array_equal(history.norm, [0.5, np.nan, 4.0])
        assert history.max_norm.tolist() == [2.0] * 3
        assert history.coefficient.tolist() == [1.0, 1.0, 0.5]
        assert history.loss.tolist() == [3.0, 2.0, 1.0]
        assert history.clipped.tolist() == [False, False, True]
        assert history.skipped.tolist() == [False, True, False]
        assert history.parameters["layer.weight"].tolist() == [0.0, 0.25, 0.5]


def test_what_a_monitor_wrote_is_what_it_keeps(tmp_path):
    paths = [tmp_path / "run.jsonl", tmp_path / "run.csv"]
    monitor = NormMonitor(writers=paths)
    for step, norm in enumerate([0.5, math.nan, 4.0, math.inf]):
        others = {"max_norm": 2.0, "coefficient": 0.5, "clipped": norm > 2, "skipped": math.isnan(norm)}
        monitor.record(norm, step=10 * step, loss=3.0 - step, parameters={"b": norm / 2, "a": norm / 4}, **others)
    monitor.fetch()
    kept = monitor.history()
    for path in paths:
        history = read(path)
        for name in ("step", "norm", "max_norm", "coefficient", "loss", "clipped", "skipped"):
            np.testing.assert_array_equal(getattr(history, name), getattr(kept, name))
        assert list(history.parameters) == list(kept.parameters) == ["b", "a"]
        for name, values in kept.parameters.items():
            np.testing.assert_array_equal(history.parameters[name], values)


def test_the_progress_goes_from_the_start_to_the_end(tmp_path):
    path = tmp_path / "log"
    path.write_text("step,grad_norm\n" + "".join(f"{i},1.5\n" for i in range(20_000)))
    done = []
    read(path, on_progress=done.append)
    assert done == sorted(done)
    assert 0 < done[0] <= done[-1] <= path.stat().st_size


def test_reading_a_log_imports_no_framework_and_no_plotting():
    code = (
        "import sys; from gradclip.monitor import read; "
        f"read({str(DATA / 'trainer_state.json')!r}); "
        "sys.exit(bool({'torch', 'jax', 'matplotlib', 'tensorboard', 'rich'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_first_line_may_be_long(tmp_path):
    """As the monitor writes it with the norms of 1,500 parameters."""
    path = tmp_path / "run.jsonl"
    names = [f"model.layers.{i}.self_attn.q_proj.weight" for i in range(1500)]
    monitor = NormMonitor(writers=[path, tmp_path / "run.csv"])
    for norm in (1.0, 2.0):
        monitor.record(norm, parameters=dict.fromkeys(names, 0.1234567890123))
    monitor.fetch()
    assert len(path.read_text().partition("\n")[0]) > 2**16
    for log in (path, tmp_path / "run.csv"):
        history = read(log)
        assert history.norm.tolist() == [1.0, 2.0]
        assert list(history.parameters) == names


def test_lists_in_lists_are_no_log(tmp_path):
    path = tmp_path / "log.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ReadError, match="not a format that is known"):
        read(path)
