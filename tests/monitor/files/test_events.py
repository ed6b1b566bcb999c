"""TensorBoard's event files: resumed, in folders, cut off, and without the package that reads them."""

import re

import numpy as np
import pytest

from gradclip.monitor import ReadError, read
from gradclip.monitor._files import _events
from tests.monitor.files.logs import DATA, TRUE

EPS32 = float(np.finfo(np.float32).eps)


def test_events_after_a_resumed_run_take_the_place_of_those_before():
    notes = []
    history = read(DATA / "resumed.tfevents", on_note=notes.append)
    assert notes == ["event 28: step 20 comes after step 24; 5 steps occur again, and the later values are used"]
    assert np.isnan(history.loss[:20]).all()
    np.testing.assert_allclose(history.loss[20:], 1 / np.arange(21, 31), rtol=EPS32)


def test_a_folder_of_event_files_is_one_run_and_several_folders_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("events.out.tfevents.1", "events.out.tfevents.2"):
        (tmp_path / "a" / name).write_bytes((DATA / "resumed.tfevents").read_bytes())
    assert read(tmp_path / "a", on_note=lambda text: None).norm.tolist() == TRUE["tensorboard"]
    (tmp_path / "b").mkdir()
    with pytest.raises(ReadError, match="without TensorBoard event files"):
        read(tmp_path / "b")
    (tmp_path / "b" / "events.out.tfevents.1").write_bytes((DATA / "transformers.tfevents").read_bytes())
    with pytest.raises(ReadError, match=r"2 folders .* Choose one of .*a, .*b"):
        read(tmp_path)


def test_an_event_file_that_was_cut_off_is_read_up_to_there(tmp_path):
    whole = (DATA / "resumed.tfevents").read_bytes()
    path = tmp_path / "events"
    path.write_bytes(whole[:-7])
    notes = []
    history = read(path, on_note=notes.append)
    assert history.norm.tolist() == TRUE["tensorboard"]
    assert re.fullmatch(r"events: \d+ bytes at the end are not a complete event; left out", notes[0])


def test_without_tensorboard_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(_events, "find_spec", lambda name: None)
    with pytest.raises(ReadError, match=r'pip install "gradclip\[tensorboard\]"'):
        read(DATA / "resumed.tfevents")
