"""Memory stays bounded: of a very long log, a sample of steps is kept, the same for all columns."""

import numpy as np

from gradclip.monitor._files import _collector
from tests.monitor.files.logs import read_text


def test_a_very_long_log_is_thinned_without_bias(tmp_path, monkeypatch):
    monkeypatch.setattr(_collector, "VALUES_KEPT", 4000)
    count = 30_000
    text = "step,grad_norm,loss\n" + "".join(f"{10 * i},{i},{-i}\n" for i in range(count))
    history, notes = read_text(tmp_path, text)
    assert 500 < history.step.size <= 2000
    np.testing.assert_array_equal(history.norm, history.step / 10)
    np.testing.assert_array_equal(history.loss, -history.norm)
    for share in (0.1, 0.5, 0.9):
        assert abs(np.quantile(history.norm, share) / count - share) < 0.05
    assert notes == ["the log is very long: a sample of one in 16 steps is used"]
