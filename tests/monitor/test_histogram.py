"""`LogHistogram`: quantiles to 1 %, merged by addition."""

import json
import math

import ddsketch
import numpy as np
import pytest

from gradclip.monitor import LogHistogram

RANDOM = np.random.default_rng(1)
SAMPLES = {
    "lognormal": np.exp(2 * RANDOM.standard_normal(20_000)),
    "wide": 10.0 ** RANDOM.uniform(-30, 30, 5_000),
    "constant": np.full(100, 3.7),
    "with zeros": np.concatenate([np.zeros(500), np.ones(500), [1e-40, 3e38]]),
}


def filled(values: np.ndarray) -> LogHistogram:
    histogram = LogHistogram()
    histogram.add(values)
    return histogram


@pytest.mark.parametrize("name", SAMPLES)
def test_quantiles_are_right_to_1_percent(name):
    values = np.sort(SAMPLES[name])
    histogram = filled(values)
    for q in (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0):
        exact = values[math.floor(q * (len(values) - 1))]
        assert histogram.quantile(q) == pytest.approx(exact, rel=0.0101)


def test_it_agrees_with_ddsketch():
    sketch = ddsketch.DDSketch(0.01)
    for value in SAMPLES["lognormal"]:
        sketch.add(value)
    histogram = filled(SAMPLES["lognormal"])
    for q in (0.01, 0.25, 0.5, 0.75, 0.99):
        assert histogram.quantile(q) == pytest.approx(sketch.get_quantile_value(q), rel=1e-9)


def test_halves_add_up_to_the_whole():
    values = SAMPLES["wide"]
    whole, sums = filled(values), filled(values[:1000]) + filled(values[1000:])
    assert np.array_equal(whole.counts, sums.counts)
    assert whole.count == sums.count == len(values)


def test_nan_inf_and_zero_are_counted_apart():
    histogram = filled(np.array([math.nan, math.inf, 0.0, 2.0]))
    assert (histogram.nans, histogram.infs, histogram.zeros, histogram.count) == (1, 1, 1, 3)
    assert histogram.quantile(0.0) == 0
    assert histogram.quantile(1.0) == math.inf
    assert math.isnan(LogHistogram().quantile(0.5))


def test_its_state_survives_json():
    histogram = filled(SAMPLES["with zeros"])
    other = LogHistogram()
    other.load_state_dict(json.loads(json.dumps(histogram.state_dict())))
    assert np.array_equal(histogram.counts, other.counts)
    assert other.zeros == 500
    assert histogram.counts.nbytes < 100_000


def test_a_share_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"q=1\.5, expected a number between 0 and 1"):
        LogHistogram().quantile(1.5)


def test_finite_norms_alone():
    histogram = filled(np.array([1.0, 2.0, math.inf, math.inf]))
    assert histogram.quantile(1.0) == math.inf
    assert histogram.quantile(1.0, finite=True) == pytest.approx(2.0, rel=0.0101)
    assert math.isnan(filled(np.array([math.inf])).quantile(0.5, finite=True))
