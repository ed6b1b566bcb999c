"""A log that a run is still writing."""

import json

import numpy as np
import pytest

from gradclip.monitor import ReadError
from gradclip.monitor._files import Follow
from tests.monitor.files.logs import DATA


def follow(path, **options):
    return Follow(path, **{"norm": None, "loss": None, "pattern": None, **options})


def test_only_complete_lines_are_read_and_each_once(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "grad_norm": 1}\n{"step": 2, "gra')
    log = follow(path)
    assert log.poll().norm.tolist() == [1.0]
    assert log.poll() is None
    with path.open("a") as file:
        file.write('d_norm": 2}\n')
    assert log.poll().norm.tolist() == [1.0, 2.0]


def test_a_log_that_is_written_anew_is_read_anew(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,grad_norm\n1,1\n2,2\n")
    log = follow(path)
    assert log.poll().loss is None
    path.write_text("step,grad_norm,loss\n1,1,\n2,2,\n3,3,9\n")
    np.testing.assert_array_equal(log.poll().loss, [np.nan, np.nan, 9.0])
    path.write_text("step,grad_norm,loss\n1,7,8\n")
    assert log.poll().norm.tolist() == [7.0]


def test_documents_and_event_files_are_read_as_a_whole(tmp_path):
    path = tmp_path / "trainer_state.json"
    for count in (3, 4):
        rows = [{"step": i, "grad_norm": 1.0} for i in range(count)]
        path.write_text(json.dumps({"log_history": rows}, indent=2))
        if count == 3:
            log = follow(path)
        assert log.poll().norm.size == count
    assert follow(DATA / "resumed.tfevents").poll().norm.size == 30


def test_a_log_that_is_not_there_or_has_no_norms_yet(tmp_path):
    path = tmp_path / "log"
    log = follow(path, pattern=r"norm (?P<norm>\S+)")
    with pytest.raises(FileNotFoundError):
        log.poll()
    path.write_text("starting\n")
    with pytest.raises(ReadError):
        log.poll()
    path.write_text("starting\nnorm 3\n")
    assert log.poll().norm.tolist() == [3.0]
