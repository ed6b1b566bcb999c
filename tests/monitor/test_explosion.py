"""Where gradients explode, and what is none."""

import math

import numpy as np
import pytest

from gradclip.monitor._explosion import explosion

NORMS = np.exp(0.3 * np.random.default_rng(0).standard_normal(2000))


def after(step: int, values: object) -> np.ndarray:
    norms = NORMS.copy()
    norms[step:] = values
    return norms


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_until_the_end(value):
    assert explosion(after(1500, value)) == (1500, 1500)
    assert explosion(after(1997, value)) == (1997, 1997)


def test_growth_that_is_never_nan():
    norms = after(1600, NORMS[1600:] * np.exp(np.arange(400) / 20))
    found = explosion(norms)
    assert found is not None
    assert 1600 + 20 * math.log(10) - 30 < found.begin < 1600 + 20 * math.log(10) + 10
    assert found.begin < found.end < 1600 + 20 * math.log(100) + 10
    assert norms[found.end] >= 100 * np.exp(-0.5)


def test_slow_growth_that_ends_in_inf():
    norms = np.concatenate([NORMS[:800] * 1.01 ** np.arange(800), np.full(20, math.inf)])
    found = explosion(norms)
    assert found is not None
    assert found.begin < found.end < 800


def test_a_plateau_far_above():
    assert explosion(after(700, 1e5 * NORMS[700:])) == (700, 700)


def test_all_nan():
    assert explosion(np.full(5, math.nan)) == (0, 0)


OTHERS = {
    "nothing": np.array([]),
    "zeros": np.zeros(100),
    "stationary": NORMS,
    "warm-up": NORMS * (1 + 1e4 * np.exp(-np.arange(2000) / 50)),
    "a beginning below, shorter than a tenth": np.concatenate([1e-4 * NORMS[:150], NORMS[150:]]),
    "slow growth": NORMS * np.exp(np.arange(2000) / 200),
    "a spike at the end": after(1998, 1e6),
    "a step up by 20": after(1000, 20 * NORMS[1000:]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_explosion(name):
    assert explosion(OTHERS[name]) is None


def test_nan_from_which_the_run_recovers():
    norms = NORMS.copy()
    norms[[3, 700, 701, 702, 1998]] = math.nan
    assert explosion(norms) is None
