"""JSON Lines: each broken line is counted, and the others are read."""

import numpy as np

from tests.monitor.files.logs import read_text


def test_each_kind_of_broken_line_is_named_with_its_number(tmp_path):
    lines = [
        '{"step": 1, "grad_norm": 2, "loss": 1}',
        '{"step": 2, "grad',
        "[1]",
        '{"step": 3, "grad_norm": "x"}',
        '{"step": 4, "grad_norm": -1}',
        '{"step": 5, "grad_norm": NaN}',
        '{"step": 6, "grad_norm": null}',
        '{"grad_norm": 3}',
        '{"step": 1.5, "grad_norm": 3}',
        '{"step": 7, "grad_n',
    ]
    history, notes = read_text(tmp_path, "\n".join(lines))
    assert history.step.tolist() == [1, 5]
    np.testing.assert_array_equal(history.norm, [2.0, np.nan])
    np.testing.assert_array_equal(history.loss, [1.0, np.nan])
    assert notes == [
        "line 2: not JSON; left out",
        "line 3: not a JSON object but list; left out",
        "line 4: 'grad_norm' is not a number; left out",
        "line 5: 'grad_norm' is negative; left out",
        "line 8: no step; left out",
        "line 9: the step is not a whole number; left out",
        "line 10: incomplete, at the end; left out",
    ]


def test_many_faults_of_a_kind_are_one_note(tmp_path):
    text = '{"step": 0, "grad_norm": 1}\n' + "{broken\n" * 1000
    assert read_text(tmp_path, text)[1] == ["lines 2, 3, 4 and 997 others: not JSON; left out"]


def test_rows_of_one_step_are_put_together_and_later_ones_win(tmp_path):
    rows = ['{"step": 1, "grad_norm": 1}', '{"step": 1, "loss": 5}', '{"step": 2, "grad_norm": 2, "loss": 4}']
    again = ['{"step": 2, "grad_norm": 3, "loss": 3}', '{"step": 3, "grad_norm": 4}']
    history, notes = read_text(tmp_path, "\n".join([*rows, *again]))
    assert history.norm.tolist() == [1.0, 3.0, 4.0]
    np.testing.assert_array_equal(history.loss, [5.0, 3.0, np.nan])
    assert notes == ["line 4: step 2 comes after step 2; 1 step occurs again, and the later values are used"]


def test_losses_of_an_evaluation_are_no_training_losses(tmp_path):
    text = '{"step": 1, "train/grad_norm": 1, "eval/loss": 9, "train/loss": 2}\n{"step": 2, "train/grad_norm": 1}\n'
    assert read_text(tmp_path, text)[0].loss[0] == 2.0


def test_zeros_at_the_end_after_a_crash_are_no_line(tmp_path):
    history, notes = read_text(tmp_path, b'{"step": 1, "grad_norm": 1}\n' + bytes(100))
    assert (history.norm.tolist(), notes) == ([1.0], [])


def test_numbers_that_are_too_large_for_a_step(tmp_path):
    _, notes = read_text(tmp_path, f'{{"step": 1, "grad_norm": 1}}\n{{"step": {2**70}, "grad_norm": 1}}\n')
    assert notes == ["line 2: the step is not a whole number; left out"]
