"""Tables with a header."""

import numpy as np
import pytest

from tests.monitor.files.logs import read_text


def test_rows_of_another_length_and_a_second_header(tmp_path):
    text = "step,grad_norm\n3,1\n4,2\nstep,grad_norm,loss\n4,3,1\n5,4,2\n1,2\n"
    history, notes = read_text(tmp_path, text)
    assert history.norm.tolist() == [1.0, 3.0, 4.0]
    np.testing.assert_array_equal(history.loss, [np.nan, 1.0, 2.0])
    assert notes == [
        "line 7: not 3 columns; left out",
        "line 5: step 4 comes after step 4; 1 step occurs again, and the later values are used",
    ]


def test_a_table_without_steps_is_counted(tmp_path):
    history, notes = read_text(tmp_path, "loss,grad_norm\n3,1\n,\n4,2\n")
    assert (history.step.tolist(), history.norm.tolist(), history.loss.tolist()) == ([0, 1], [1.0, 2.0], [3.0, 4.0])
    assert notes == ["the log has no steps: norms are counted from 0"]


def test_one_row_a_value(tmp_path):
    text = "run_id,key,value,step,timestamp\nr,grad_norm,2,0,9\nr,loss,7,0,9\nr,grad_norm,3,1,9\nr,acc,x,1,9\n"
    history, notes = read_text(tmp_path, text)
    assert (history.norm.tolist(), notes) == ([2.0, 3.0], [])
    np.testing.assert_array_equal(history.loss, [7.0, np.nan])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_and_quotes(tmp_path, delimiter):
    rows = [["Step", "my run, 2 - train/grad_norm"], ["1", "2.5"]]
    text = "\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    assert read_text(tmp_path, text)[0].norm.tolist() == [2.5]


def test_steps_that_pandas_wrote_as_floats(tmp_path):
    assert read_text(tmp_path, ",step,grad_norm\n0,10.0,1.5\n1,20.0,2.5\n")[0].step.tolist() == [10, 20]


def test_the_most_usual_name_is_taken_wherever_it_stands(tmp_path):
    history, notes = read_text(tmp_path, "step,gnorm,global_step,grad_norm\n1,9,7,2\n")
    assert (history.step.tolist(), history.norm.tolist()) == ([1], [2.0])
    assert notes == ["'grad_norm' is read; other norms: 'gnorm'; choose with --norm"]


def test_parameters_keep_the_order_of_the_log(tmp_path):
    history, _ = read_text(tmp_path, "step,grad_norm/z,grad_norm/a,grad_norm,grad_norm/m\n1,1,2,3,4\n")
    assert list(history.parameters) == ["z", "a", "m"]
