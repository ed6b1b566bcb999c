"""The coefficient: thresholds that could not be checked, both ends of the range, and the number shown to users."""

import math
from itertools import product

import dask.array as da
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gradclip
from gradclip._coefficient import coefficient
from gradclip._decision import Rule, decide_by_arrays, decide_by_floats
from gradclip._partial import NormPartial
from tests import exact

SPACES = {"dask": da.from_array, "jax": jnp.asarray}
CLIPS = {
    "global norm": lambda g, m: gradclip.clip_by_global_norm(g, m)[0],
    "known norm": lambda g, m: gradclip.clip_with_norm(g, m, gradclip.norm_partial(g)),
    "norm": gradclip.clip_by_norm,
    "rms": gradclip.clip_by_rms,
    "value": gradclip.clip_by_value,
    "value, both bounds": lambda g, m: gradclip.clip_by_value(g, m, min_value=-m),
    "value, one bound known": lambda g, m: gradclip.clip_by_value(g, m, min_value=1.0),
    "adaptive": lambda g, m: gradclip.adaptive_grad_clip(g, [abs(x) + 1 for x in g], m),
    "per example": lambda g, m: gradclip.clip_per_example(g, m)[0],
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("clip", CLIPS)
def test_a_negative_threshold_that_could_not_be_checked_is_taken_as_zero(space, clip):
    make = SPACES[space]
    grads = [make(np.array([3.0, -4.0], np.float32)), make(np.array([0.5, 0.0], np.float32))]
    for x in CLIPS[clip](grads, make(np.float32(-2.0))):
        assert not np.asarray(x).any()


def test_a_tensor_whose_derivatives_are_recorded_is_checked():
    grads = [torch.tensor([3.0, 4.0])]
    with pytest.raises(ValueError, match="expected a number >= 0"):
        gradclip.clip_by_global_norm(grads, torch.tensor(-1.0, requires_grad=True))


def partial(scale, total):
    return NormPartial(np.float64(scale), np.float64(total), 2.0, np.float64)


@pytest.mark.parametrize("policy", ["propagate", "zero"])
def test_the_number_that_is_told(policy):
    for total, want in ((4.0, 1.0), (25.0, 0.6), (math.inf, 0.0), (math.nan, math.nan)):
        with np.errstate(all="ignore"):
            c = coefficient(partial(1.0, total), 3.0, nonfinite=policy)
            assert c.number == pytest.approx(
                0.0 if policy == "zero" and not math.isfinite(total) else want, nan_ok=True
            )
            assert bool(c.changed) == (want != 1)


MAGNITUDES = [0.0, 1e-320, 1e-300, 1e-20, 0.5, 1.0, 1.5, 3.0, 1e20, 1e300, math.inf]


@pytest.mark.parametrize("ord", [0.5, 1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("zero", [False, True])
def test_the_formula_for_floats_is_the_one_for_arrays(ord, zero):
    """Over all magnitudes, with and without eps and a loss scale; the numbers agree to the last bit but one."""
    policy = "zero" if zero else "propagate"
    numbers = product(
        [1.0, 2.0**-1000, 2.0**900], [*MAGNITUDES, math.nan], MAGNITUDES, [0.0, 1e-6, 3.0], [1.0, 1024.0, 0.1]
    )
    found, right_ones = [], []
    for scale, total, max_norm, eps, loss_scale in numbers:
        rule = Rule(max_norm, ord, policy, loss_scale, eps)
        with np.errstate(all="ignore"):
            known = NormPartial(np.asarray(scale), np.asarray(total), ord, np.float64)
            right = decide_by_arrays(known, rule)
            norm, c = decide_by_floats(scale, total, ord, rule.floats(), zero=zero)
            found.append([norm, *c.multipliers, c.number])
            right_ones.append([right.norm, *right.coefficient.multipliers, right.coefficient.number])
        assert (c.changed, c.zeroed) == (right.clipped, right.coefficient.zeroed)
    assert [len(row) for row in found] == [len(row) for row in right_ones]
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(right_ones), rtol=4e-16)


@pytest.mark.parametrize("max_norm", [1e308, 1e300, None])
def test_scaled_gradients_whose_norm_is_out_of_range(max_norm):
    """The norm of the gradients that are not scaled is within it, and may be below the threshold."""
    scaled = [np.full(4, 1.7e308)]
    clipped, norm = gradclip.clip_by_global_norm(scaled, max_norm, scale=1024.0)
    assert exact.relative_error(norm, exact.norm([1.7e308 / 1024] * 4)) < 1e-14
    factor = min(1.0, math.inf if max_norm is None else max_norm / float(norm))
    np.testing.assert_allclose(clipped[0], np.full(4, 1.7e308 / 1024 * factor), rtol=1e-14)


@pytest.mark.parametrize(
    ("space", "dtype"), [(np.asarray, "float32"), (np.asarray, "float64"), (jnp.asarray, "float32")]
)
def test_leaves_at_the_end_of_the_range(space, dtype):
    """Neither the threshold of a root mean square nor that of a unit has to be a number that the dtype has."""
    most = float(np.finfo(dtype).max)
    x, half = (space(np.full(16, most * part, dtype)) for part in (0.9, 0.45))
    for clipped in (
        gradclip.clip_by_rms(x, most * 0.45),
        gradclip.adaptive_grad_clip(x, half, 1.0),
        gradclip.adaptive_grad_clip(x, x, 0.5),
    ):
        np.testing.assert_allclose(clipped, half, rtol=1e-6)
    assert np.array_equal(gradclip.adaptive_grad_clip(half, x, 1.0), half)
    assert np.array_equal(gradclip.clip_by_rms(half, most * 0.5), half)


@pytest.mark.parametrize("limit", [jnp.asarray(-1.0), np.float32(0.0) * jnp.asarray(-1.0)])
def test_thresholds_of_another_library_never_turn_the_gradients(limit):
    grads = np.array([3.0, 4.0])
    for clipped in (
        gradclip.clip_by_global_norm(grads, limit)[0],
        gradclip.clip_with_norm(grads, limit, 5.0),
    ):
        assert clipped.tolist() == [0, 0]


def test_a_loss_scale_that_could_not_be_checked_never_turns_the_gradients():
    clipped, norm = gradclip.clip_by_global_norm(jnp.asarray([3.0, 4.0]), 1.0, scale=jnp.asarray(-1.0))
    assert np.isnan(clipped).all()
    assert np.isnan(norm)
