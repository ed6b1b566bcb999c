"""``summary``: percentiles, shares, and spikes with the parameters that made them."""

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
    assert next(iter(found.spikes[0].parameters)) == "head"
    assert next(iter(found.spikes[1].parameters)) == "embedding"
    assert sum(found.spikes[0].parameters.values()) == pytest.approx(1)
    assert found.clipped == 2 / 400
    assert found.skipped is None
    assert found.percentiles[50] == pytest.approx(np.median(norms))
    assert found.largest == 90


def test_what_is_not_finite_is_counted():
    found = summary(History(np.arange(4), np.array([1.0, math.nan, math.inf, 1.0])))
    assert (found.steps, found.nonfinite, found.largest) == (4, 2, 1)
    assert [spike.norm for spike in found.spikes] == [math.inf]


def test_nothing():
    found = summary(History(np.array([], np.int64), np.array([])))
    assert found.steps == 0
    assert math.isnan(found.percentiles[50])
    assert found.spikes == []
