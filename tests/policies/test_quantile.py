"""QuantileClip, against its formula, and where it settles."""

import math

import numpy as np
import pytest

from gradclip.policies import QuantileClip
from tests.policies.frameworks import assert_same, run_floats, with_floats
from tests.policies.recorded import norms, spoiled


def reference(values, quantile=0.5, learning_rate=0.2, initial=0.1):
    """arXiv:1905.03871, the geometric update, for one norm a step."""
    limit, thresholds = initial, []
    for n in values:
        thresholds.append(limit)
        if 0 < n < math.inf:
            limit *= math.exp(-learning_rate * ((n <= limit) - quantile))
    return thresholds


@with_floats
@pytest.mark.parametrize("arguments", [{}, {"quantile": 0.9, "learning_rate": 0.05, "initial": 2.0}])
def test_the_formula(arguments, run):
    assert_same(run, QuantileClip(**arguments), spoiled(), reference(spoiled(), **arguments))


@pytest.mark.parametrize("quantile", [0.3, 0.9])
def test_it_settles_where_that_share_of_steps_is_not_clipped(quantile):
    values = np.random.default_rng(0).lognormal(size=20_000)
    thresholds = run_floats(QuantileClip(quantile, learning_rate=0.02), values.tolist())
    assert np.mean(values[1000:] <= thresholds[1000:]) == pytest.approx(quantile, abs=0.005)


@with_floats
def test_norms_near_the_largest_number_of_float32(run):
    values = [float(np.float32(x * 3e38 / max(norms()))) for x in norms()]
    assert_same(run, QuantileClip(initial=1e37), values, reference(values, initial=1e37))


@pytest.mark.parametrize("arguments", [{"quantile": 1.0}, {"quantile": 0}, {"learning_rate": 0}, {"initial": math.inf}])
def test_arguments(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}, expected a finite number > 0"):
        QuantileClip(**arguments)
