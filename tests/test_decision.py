"""`Rule` checks its numbers; the decision by arrays and by floats is the same, and right at any magnitude."""

import math

import numpy as np
import pytest

from gradclip._decision import Decision, Rule, decide_by_arrays, decide_by_floats, unscaled_norm
from gradclip._partial import NormPartial
from tests import exact


def partial_of(scale, total, ord=2.0, dtype=np.float64):
    return NormPartial(np.asarray(float(scale)), np.asarray(float(total)), ord, np.dtype(dtype))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"max_norm": -1.0}, ValueError, "max_norm=-1.0"),
        ({"max_norm": math.nan}, ValueError, "max_norm=nan"),
        ({"max_norm": "1"}, TypeError, "max_norm='1'"),
        ({"max_norm": 1.0, "ord": 0}, ValueError, "ord=0"),
        ({"max_norm": 1.0, "nonfinite": "skip"}, ValueError, "nonfinite='skip'"),
        ({"max_norm": 1.0, "loss_scale": 0.0}, ValueError, "scale=0.0"),
        ({"max_norm": 1.0, "eps": -1e-6}, ValueError, "eps=-1e-06"),
    ],
)
def test_a_rule_refuses_numbers_that_cannot_be_right(arguments, error, words):
    with pytest.raises(error, match=words):
        Rule(**arguments)


def test_a_rule_without_a_threshold_has_the_threshold_inf():
    assert Rule(None).numbers() == (math.inf, 0.0, 1.0)
    assert Rule(2, loss_scale=4).floats() == (2.0, 0.0, 4.0)
    assert (Rule(1.0, nonfinite="zero").zero, Rule(1.0, nonfinite="error").zero) == (True, False)


@pytest.mark.parametrize(("given", "read"), [(np.asarray(3.0), 3.0), (np.asarray(0.5, np.float32), 0.5)])
def test_numbers_in_arrays_are_read_on_a_host(given, read):
    assert Rule(given).floats() == (read, 0.0, 1.0)


def test_a_threshold_in_a_tensor_is_read_unless_its_derivative_is_recorded():
    torch = pytest.importorskip("torch")
    limit = torch.tensor(2.0, requires_grad=True)
    assert Rule(limit).floats() is None
    with torch.no_grad():
        assert Rule(limit).floats() == (2.0, 0.0, 1.0)
    assert Rule(torch.zeros((), device="meta")).floats() is None


def test_a_traced_threshold_is_not_read():
    jax = pytest.importorskip("jax")
    seen = []
    jax.jit(lambda limit: seen.append(Rule(limit).floats()) or limit)(1.0)
    assert seen == [None]


SCALES, TOTALS = [1e-300, 1e-38, 1.0, 3e38, 1e300], [0.0, 1.0, 2.0, 7.5, math.inf, math.nan]


@pytest.mark.parametrize("ord", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("nonfinite", ["propagate", "zero"])
@pytest.mark.parametrize("loss_scale", [1.0, 1024.0])
def test_both_ways_decide_alike(ord, nonfinite, loss_scale):
    """For every norm, threshold and eps, the numbers are equal to the last bits and the flags are the same."""
    for scale in SCALES:
        for total in TOTALS:
            for max_norm in (0.0, scale / 3, scale, scale * 4, None):
                rule = Rule(max_norm, ord, nonfinite, loss_scale, 0.25)
                with np.errstate(all="ignore"):
                    by_arrays = decide_by_arrays(partial_of(scale, total, ord), rule)
                    number = float(by_arrays.coefficient.number)
                norm, c = decide_by_floats(scale, total, ord, rule.floats(), zero=rule.zero)
                assert norm == pytest.approx(float(by_arrays.norm), rel=1e-14, nan_ok=True)
                assert float(c.number) == pytest.approx(number, rel=1e-13, abs=0.0, nan_ok=True)
                assert c.changed == bool(by_arrays.coefficient.changed)
                assert bool(c.zeroed) == bool(by_arrays.coefficient.zeroed)
                assert bool(by_arrays.finite) == math.isfinite(total)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
@pytest.mark.parametrize("loss_scale", [2.0**-10, 1.0, 3.0, 65536.0])
def test_the_coefficient_is_threshold_over_norm_over_loss_scale(scale, loss_scale):
    norm = exact.stands_for(scale, 2.0, 2.0) / exact.mpmath.mpf(loss_scale)
    threshold = float(norm) / 8
    want = exact.mpmath.mpf(threshold) / norm / exact.mpmath.mpf(loss_scale)
    _, c = decide_by_floats(scale, 2.0, 2.0, (threshold, 0.0, loss_scale), zero=False)
    assert c.changed
    assert exact.relative_error(float(c.number), want) < 1e-14


def test_the_unscaled_norm_is_right_where_the_scaled_one_overflows():
    partial = partial_of(1e308, 16.0)
    with np.errstate(all="ignore"):
        assert unscaled_norm(partial, 1.0) == math.inf
        assert float(unscaled_norm(partial, 1024.0)) == pytest.approx(1e308 / 256, rel=1e-15)
        assert float(unscaled_norm(partial, np.asarray(1024.0))) == pytest.approx(1e308 / 256, rel=1e-15)


@pytest.mark.parametrize(("total", "finite"), [(1.0, True), (math.inf, False), (math.nan, False)])
def test_finite_is_read_from_the_total_not_from_the_norm(total, finite):
    for given in (total, np.asarray(total)):
        decision = Decision(np.asarray(math.inf), decide_by_arrays(partial_of(1.0, 1.0), Rule(1.0)).coefficient, given)
        assert bool(decision.finite) is finite
    assert not bool(decision.clipped)
