"""Values of a column with their steps."""

import numpy as np

from gradclip.monitor._files._points import Points, in_sample


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
