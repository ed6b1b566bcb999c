"""Memory stays bounded: of a very long log, a sample of steps is kept, the same for all columns."""

import numpy as np

from gradclip.monitor._files import _collector
from gradclip.monitor._files._points import Points, in_sample
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


def test_a_step_is_in_the_sample_whether_it_is_thinned_before_or_after():
    for bits in (1, 3, 6):
        points = Points()
        for step in range(-500, 500):
            points.append(step, float(step))
        points.thin(bits)
        assert points.latest()[0].tolist() == [step for step in range(-500, 500) if in_sample(step, bits)]


def test_values_at_steps_that_are_missing_are_nan():
    points = Points()
    assert np.isnan(points.at(np.array([1, 2]))).all()
    for step, value in ((5, 1.0), (2, 2.0), (5, 3.0)):
        points.append(step, value)
    np.testing.assert_array_equal(points.at(np.array([1, 2, 5, 9])), [np.nan, 2.0, 3.0, np.nan])
