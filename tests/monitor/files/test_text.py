"""Text logs: what is found without a pattern, and with one."""

import numpy as np
import pytest

from gradclip.monitor import ReadError
from tests.monitor.files.logs import read_text


@pytest.mark.parametrize(
    ("line", "step", "norm", "loss"),
    [
        ("\x1b[31mstep:  1  loss:  8.1  grad_norm:  1.25\x1b[0m", 1, 1.25, 8.1),  # torchtitan
        ((" iteration      100/  500 | consumed samples: 12 | lm loss: 7.2E+00 | loss scale: 1.0 | grad norm: 3.125 | "
         "number of skipped iterations:   0 |"), 100, 3.125, 7.2),  # Megatron
        ("{'loss': '546.4', 'grad_norm': '19.75', 'learning_rate': '0.001', 'epoch': '0.9'}", 0, 19.75, 546.4),
        ("2024-01-01 | INFO | train | {\"epoch\": 1, \"loss\": \"2.5\", \"gnorm\": \"0.5\"}", 0, 0.5, 2.5),  # fairseq
        ("step 7 grad_norm=inf loss=nan", 7, np.inf, np.nan),
    ],
)  # fmt: skip
def test_lines_of_usual_trainers(tmp_path, line, step, norm, loss):
    history, _ = read_text(tmp_path, f"hello\n{line}\nbye\n")
    np.testing.assert_array_equal(history.step, [step])
    np.testing.assert_array_equal(history.norm, [norm])
    np.testing.assert_array_equal(history.loss, [loss])


LOG = "it=3 G 0.5 L 2\nit=4 G bad L 2\nother\nit=5 G 0.75 L 1\n"


def test_a_pattern_says_what_is_what(tmp_path):
    pattern = r"it=(?P<step>\d+) G (?P<norm>\S+) L (?P<loss>\S+)"
    history, notes = read_text(tmp_path, LOG, pattern=pattern)
    assert (history.step.tolist(), history.norm.tolist(), history.loss.tolist()) == ([3, 5], [0.5, 0.75], [2.0, 1.0])
    assert notes == ["line 2: 'grad_norm' is not a number; left out"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"zz (?P<norm>\S+)", "no line matches --pattern"),
        (r"it=(\d+)", r"needs a group named norm, such as .*; its named groups: none"),
        (r"it=(?P<step>\d+)", "its named groups: step"),
        (r"it=(\d+", "is not a regular expression: missing"),
    ],
)
def test_a_pattern_that_cannot_work_is_an_error(tmp_path, pattern, message):
    with pytest.raises(ReadError, match=message):
        read_text(tmp_path, LOG, pattern=pattern)
