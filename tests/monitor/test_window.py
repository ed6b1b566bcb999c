"""`Window` and `Totals`: the last rows exactly, and what is known of all in bounded memory."""

import json
import math

import numpy as np
import pytest

from gradclip.monitor._row import Known
from gradclip.monitor._summary import summary
from gradclip.monitor._totals import SPIKES_MOST, Totals
from gradclip.monitor._window import Window


def row(step: int, norm: float, names: tuple[str, ...] = (), norms: tuple[float, ...] = (), **numbers: float) -> Known:
    return Known(step, {"norm": norm, **numbers}, names, np.array(norms, np.float64))


def filled(size: int, count: int, at_a_time: int) -> Window:
    window = Window(size, lambda *_: None)
    rows = [row(i, 1.0 + i, ("a", "b"), (i, 2.0 * i)) for i in range(count)]
    for start in range(0, count, at_a_time):
        window.extend(rows[start : start + at_a_time])
    return window


@pytest.mark.parametrize("at_a_time", [1, 7, 100, 1000])
@pytest.mark.parametrize("size", [1, 50, 300])
def test_the_last_rows_are_there_and_at_most_twice_as_many(size, at_a_time):
    history = filled(size, 1000, at_a_time).history()
    assert size <= len(history) <= 2 * size
    first = 1000 - len(history)
    assert history.step.tolist() == list(range(first, 1000))
    np.testing.assert_array_equal(history.norm, 1.0 + history.step)
    np.testing.assert_array_equal(history.parameters["b"], 2.0 * history.step)


def test_its_memory_is_bounded():
    window = filled(100, 5000, 13)
    assert window._steps.size == 200
    assert {column.size for column in [*window._numbers.values(), *window._parameters.values()]} == {200}


def test_what_is_missing_is_nan():
    window = Window(10, lambda *_: None)
    window.extend([row(0, 1.0, loss=3.0), row(1, 2.0, ("w",), (5.0,), clipped=1.0), row(2, 3.0, ("v",), (6.0,))])
    history = window.history()
    np.testing.assert_array_equal(history.loss, [3.0, math.nan, math.nan])
    np.testing.assert_array_equal(history.parameters["w"], [math.nan, 5.0, math.nan])
    np.testing.assert_array_equal(history.parameters["v"], [math.nan, math.nan, 6.0])
    assert history.clipped.tolist() == [False, True, False]
    assert history.max_norm is None


def test_a_step_that_was_recorded_twice_has_the_later_row():
    window = Window(10, lambda *_: None)
    window.extend([row(step, norm) for step, norm in [(0, 1.0), (1, 2.0), (2, 3.0), (1, 4.0), (2, 5.0), (3, 6.0)]])
    history = window.history()
    assert history.step.tolist() == [0, 1, 2, 3]
    assert history.norm.tolist() == [1, 4, 5, 6]


def test_totals_have_what_left_the_window():
    random = np.random.default_rng(0)
    norms = np.exp(0.2 * random.standard_normal(3000))
    norms[[100, 1500, 2990]], norms[5], norms[6], norms[7] = [50.0, 70.0, 60.0], math.nan, math.inf, 0.0
    totals = Totals()
    window = Window(200, totals.leave)
    for start in range(0, 3000, 50):
        rows = [row(i, norms[i], clipped=float(norms[i] > 1)) for i in range(start, start + 50)]
        totals.add(rows)
        window.extend(rows)
    found = totals.widened(summary(window.history()))
    finite = norms[np.isfinite(norms)]
    assert (found.steps, found.nonfinite, found.zero, found.largest) == (3000, 2, 1, 70)
    for percent, value in found.percentiles.items():
        assert value == pytest.approx(np.percentile(finite, percent, method="lower"), rel=0.0101)
    assert found.clipped == np.mean(norms > 1)
    assert found.skipped is None
    assert [spike.step for spike in found.spikes] == [6, 1500, 2990, 100]


def test_totals_keep_the_largest_spikes_only():
    norms = np.ones(4000)
    norms[::20] = np.arange(10.0, 210.0)
    totals = Totals()
    window = Window(1000, totals.leave)
    window.extend([row(i, x) for i, x in enumerate(norms)])
    window.extend([row(4000 + i, 1.0) for i in range(2000)])
    assert [spike.norm for spike in totals.spikes] == list(np.arange(209.0, 109.0, -1))
    assert len(totals.spikes) == SPIKES_MOST


def test_their_states_survive_json():
    totals = Totals()
    window = Window(100, totals.leave)
    for start in range(0, 400, 50):
        rows = [row(i, 90.0 if i == 20 else 1.0, ("w",), (1.0,), skipped=0.0) for i in range(start, start + 50)]
        totals.add(rows)
        window.extend(rows)
    others = Totals()
    other = Window(100, others.leave)
    others.load_state_dict(json.loads(json.dumps(totals.state_dict())))
    other.load_state_dict(json.loads(json.dumps(window.state_dict())))
    assert others.widened(summary(other.history())) == totals.widened(summary(window.history()))
    other.extend([row(400, 2.0, ("w",), (2.0,))])
    assert other.history().norm[-1] == 2
