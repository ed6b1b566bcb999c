"""`summary`: percentiles, shares, and spikes with the parameters that made them."""

import math

import numpy as np
import pytest

from gradclip.monitor import History, summary


def test_a_spike_is_blamed_on_its_parameters():
    norms = np.exp(0.1 * np.random.default_rng(0).standard_normal(400))
    parts = {"embedding": norms * 0.6, "head": norms * 0.8}
    norms[[100, 300]], parts["head"][300], parts["embedding"][100] = [50.0, 90.0], 89.9, 49.9
    clipped = norms > 2
    found = summary(History(np.arange(400), norms, clipped=clipped, parameters=parts))
    assert [spike.step for spike in found.spikes] == [300, 100]
    assert [next(iter(spike.parameters)) for spike in found.spikes] == ["head", "embedding"]
    head = 89.9**2 / (89.9**2 + parts["embedding"][300] ** 2)
    assert found.spikes[0].parameters["head"] == pytest.approx(head, rel=1e-12)
    assert found.spikes[0].times == pytest.approx(90, rel=0.1)
    assert found.clipped == 2 / 400
    assert found.skipped is None
    assert found.percentiles[50] == pytest.approx(np.median(norms))
    assert found.largest == 90
    assert list(found.shares) == ["head", "embedding"]
    assert found.shares["head"] == pytest.approx(0.64, abs=0.01)
    assert sum(found.shares.values()) == pytest.approx(1)


def test_what_is_not_finite_is_counted():
    found = summary(History(np.arange(5), np.array([1.0, math.nan, math.inf, 1.0, 0.0])))
    assert (found.steps, found.nonfinite, found.zero, found.largest) == (5, 2, 1, 1)
    assert [(spike.norm, spike.times) for spike in found.spikes] == [(math.inf, math.inf)]


def test_an_infinite_spike_is_blamed_on_what_is_not_finite():
    norms = np.ones(60)
    norms[30] = math.inf
    parts = {"a": norms * 0.5, "b": norms * 0.5, "c": np.ones(60), "d": np.ones(60)}
    parts["b"][30] = math.nan
    (spike,) = summary(History(np.arange(60), norms, parameters=parts)).spikes
    assert spike.parameters == {"a": 0.5, "b": 0.5}


def test_norms_whose_squares_overflow_have_shares():
    norms = np.ones(60)
    norms[30] = 1e300
    parts = {"a": norms * 0.6, "b": norms * 0.8}
    found = summary(History(np.arange(60), norms, parameters=parts))
    assert found.spikes[0].parameters == pytest.approx({"b": 0.64, "a": 0.36})
    assert found.shares == pytest.approx({"b": 0.64, "a": 0.36})


def test_a_parameter_without_a_norm_at_a_step_has_no_share_there():
    norms = np.ones(40)
    half = np.where(np.arange(40) < 20, 1.0, math.nan)
    found = summary(History(np.arange(40), norms, parameters={"a": norms, "b": half}))
    assert found.shares == {"a": 0.75, "b": 0.25}


def test_nothing():
    found = summary(History(np.array([], np.int64), np.array([])))
    assert found.steps == 0
    assert math.isnan(found.percentiles[50])
    assert found.spikes == []
    assert found.clipped is None
