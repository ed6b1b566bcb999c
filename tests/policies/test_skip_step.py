"""SkipStep, against the rules of OLMo-core, Megatron-LM and llm.c."""

import math
import statistics

import numpy as np
import pytest

from gradclip.policies import SkipStep
from tests.policies.frameworks import assert_same, run_floats, with_floats
from tests.policies.recorded import norms, spoiled


def olmo_core(values, sigma=6.0, window=128):
    """``skip_step_optimizer.py``: mean and deviation of a sample of the norms before, from half a window on."""
    seen, thresholds = [], []
    for n in values:
        before = seen[-window:]
        enough = len(before) >= max(2, window // 2 - 1)
        thresholds.append(statistics.mean(before) + sigma * statistics.stdev(before) if enough else math.inf)
        seen += [n] if 0 < n < math.inf else []
    return thresholds


def llm_c_skips(values, sigma, window):
    """``outlier_detector.h``: the z-score among the last norms, of which the new one is one."""
    seen, skips = [], []
    for n in values:
        full = len(seen) >= window
        seen.append(n)
        last = seen[-window:]
        spread = statistics.pstdev(last)
        skips.append(full and spread > 0 and (n - statistics.mean(last)) / spread > sigma)
    return skips


@with_floats
@pytest.mark.parametrize("arguments", [{}, {"sigma": 3.0, "window": 16}, {"sigma": 2.0, "window": 2}])
def test_the_rule_of_olmo_core(arguments, run):
    assert_same(run, SkipStep(**arguments), spoiled(), olmo_core(spoiled(), **arguments))


@with_floats
def test_the_rule_of_llm_c(run):
    policy = SkipStep(sigma=3.0, window=20, rule="llm.c")
    skips = np.asarray(norms()) > run(policy, norms())
    assert skips.tolist() == llm_c_skips(norms(), 3.0, 20)
    assert skips[[37, 61, 110]].all()


@with_floats
def test_a_fixed_threshold(run):
    assert_same(run, SkipStep(2.5), spoiled(), [2.5] * len(spoiled()))
    both = SkipStep(2.5, sigma=3.0, window=16)
    assert_same(run, both, spoiled(), np.minimum(2.5, olmo_core(spoiled(), 3.0, 16)))


@with_floats
def test_norms_that_are_all_equal_are_no_outliers(run):
    """A mean by a sum and a quotient may be below 0.1, so that 0.1 would be skipped."""
    norm = float(np.float32(0.1))
    assert run(SkipStep(sigma=6, window=100), [norm] * 120)[-1] == norm


@with_floats
def test_norms_near_the_largest_number_of_float32(run):
    values = [float(np.float32(x * 3e38 / max(norms()))) for x in norms()]
    assert_same(run, SkipStep(sigma=1.0, window=40), values, olmo_core(values, 1.0, 40))


def test_it_says_that_it_skips():
    assert SkipStep().skips
    assert SkipStep().sigma == 6
    assert SkipStep(threshold=1.0).sigma is None
    assert run_floats(SkipStep(1.0), [math.nan])[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 0.0}, "threshold=0.0, expected a finite number > 0; pass None for a rule by sigma"),
        ({"sigma": -1}, "sigma=-1, expected a finite number > 0"),
        ({"window": 1}, "window=1, expected an integer >= 2; pass window=128"),
        (
            {"sigma": 6, "window": 37, "rule": "llm.c"},
            "sigma=6, expected a finite number > 0 and < 6; pass sigma=6 with",
        ),
        ({"rule": "megatron"}, "rule='megatron', expected one of 'olmo-core', 'llm.c'"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SkipStep(**arguments)
