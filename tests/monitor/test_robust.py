"""Robust statistics: trend and truncation beside independent references, spikes at known steps."""

import math

import numpy as np
import pytest
from scipy import stats

from gradclip.monitor._robust import batches, deviations, logarithms, settled_from, spikes, trend

RANDOM = np.random.default_rng(3)


def test_logarithms_keep_inf_and_have_none_for_the_rest():
    with np.errstate(all="raise"):
        logs = logarithms(np.array([1.0, 0.0, -1.0, math.inf, math.nan]))
    np.testing.assert_array_equal(logs, [0, math.nan, math.nan, math.inf, math.nan])


def test_batches_cut_without_remainder_and_have_medians():
    logs = np.arange(1003.0)
    cut = batches(logs)
    assert (cut.edges[0], cut.edges[-1], cut.medians.size) == (0, 1003, 200)
    assert set(np.diff(cut.edges)) == {5, 6}
    assert cut.medians.tolist() == [float(np.median(logs[a:b])) for a, b in zip(cut.edges, cut.edges[1:], strict=False)]
    assert batches(np.array([math.inf, math.inf, 1.0])).medians.tolist() == [math.inf]
    assert np.isnan(batches(np.array([])).medians).all()


@pytest.mark.parametrize("values", [RANDOM.standard_normal(50), np.repeat(np.arange(10.0), 5), np.arange(40.0)])
def test_the_trend_is_that_of_scipy(values):
    """One value a batch: Kendall's tau by scipy, whose score has a continuity correction for the test of trend."""
    logs = np.repeat(values, 5)  # batches of five equal steps
    found = trend(logs)
    n = values.size
    slope = stats.theilslopes(values, np.arange(n)).slope
    assert found.change == pytest.approx(slope * (n - 1), rel=1e-12, abs=1e-12)
    tau = stats.kendalltau(np.arange(n), values, variant="c", method="asymptotic")
    s = float(np.sign(values[None, :] - values[:, None])[np.triu_indices(n, 1)].sum())
    without_correction = found.score * s / (s - np.sign(s)) if s else 0.0
    assert 2 * stats.norm.sf(abs(without_correction)) == pytest.approx(tau.pvalue, rel=1e-9)


def test_equal_values_have_no_trend():
    assert trend(np.zeros(500)) == (0.0, 0.0)
    assert trend(np.array([1.0, 2.0])) == (0.0, 0.0)


def test_the_truncation_point_is_that_of_the_definition():
    """MSER by its definition: for each point the variance of what follows, divided by its number."""
    medians = np.concatenate([np.linspace(3, 0, 30), 0.1 * RANDOM.standard_normal(170)])
    errors = np.array([np.var(medians[d:]) / (200 - d) for d in range(101)])
    first = int(np.flatnonzero(errors <= 1.1 * errors.min())[0])
    assert settled_from(np.repeat(medians, 5)) == 5 * first
    assert 20 < first < 40


def test_what_never_settles_has_no_truncation_point():
    assert settled_from(np.zeros(1000)) == 0
    assert settled_from(np.array([])) == 0
    assert settled_from(np.arange(5.0)) == 0


def test_spikes_are_found_on_a_drifting_level():
    level = np.linspace(0, 3, 2000)
    logs = level + 0.1 * RANDOM.standard_normal(2000)
    logs[[77, 1200, 1990]] = level[[77, 1200, 1990]] + math.log(5)
    logs[500], logs[600] = math.inf, math.nan
    assert np.flatnonzero(spikes(logs)).tolist() == [77, 500, 1200, 1990]
    assert deviations(logs)[1] == pytest.approx(0.1, rel=0.1)


def test_what_is_less_than_twice_the_level_is_no_spike():
    logs = np.zeros(100)
    logs[50], logs[60] = math.log(1.99), math.log(2.01)
    assert np.flatnonzero(spikes(logs)).tolist() == [60]


def test_without_finite_norms_there_are_no_spikes():
    assert not spikes(np.full(10, math.nan)).any()
    assert not spikes(np.array([])).any()
