"""JSON documents: read row by row, whole or not, on one line or many."""

import json

import pytest

from gradclip.monitor._files import _json
from tests.monitor.files.logs import read_text

ROWS = [{"epoch": i / 10, "grad_norm": i / 2, "loss": 1.0, "step": i} for i in range(1, 6)]
DOCUMENT = {"best_metric": None, "log_history": ROWS, "trial_params": {"a": 1}}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("document", [DOCUMENT, ROWS])
@pytest.mark.parametrize("chunk", [1, 7, 2**16])
def test_a_document_is_read_in_chunks_of_any_size(tmp_path, monkeypatch, indent, document, chunk):
    monkeypatch.setattr(_json, "CHUNK", chunk)
    history, notes = read_text(tmp_path, json.dumps(document, indent=indent))
    assert (history.norm.tolist(), notes) == ([0.5, 1.0, 1.5, 2.0, 2.5], [])


def test_a_document_that_is_cut_off_is_read_up_to_there(tmp_path):
    text = json.dumps(DOCUMENT, indent=2)
    cut = text[: text.index('"step": 4')]
    history, notes = read_text(tmp_path, cut)
    assert history.step.tolist() == [1, 2, 3]
    line = cut[: cut.rindex("{")].count("\n") + 1
    assert notes == [f"line {line}: incomplete, at the end; left out"]


def test_a_broken_row_is_left_out_and_the_next_is_read(tmp_path):
    text = json.dumps(DOCUMENT, indent=2).replace('"grad_norm": 1.0', '"grad_norm" 1.0')
    history, notes = read_text(tmp_path, text)
    assert history.step.tolist() == [1, 3, 4, 5]
    assert notes == ["line 10: not JSON; left out"]


def test_rows_without_a_norm_are_no_fault(tmp_path):
    rows = [*ROWS, {"eval_loss": 1.0, "step": 5}, {"train_runtime": 9.0, "train_loss": 2.0, "step": 5}]
    history, notes = read_text(tmp_path, json.dumps({"log_history": rows}))
    assert (history.step.size, notes) == (5, [])
