"""Clipping of spikes, against the formula of SPAM."""

import array_api_strict
import ml_dtypes
import numpy as np
import pytest

import gradclip

RNG = np.random.default_rng(2)
GRADS = RNG.standard_normal((70, 1000)) * np.exp(3 * RNG.standard_normal((70, 1000)))
MOMENTS = RNG.random((70, 1000)) * 1e-3


def spam(grads, moments, threshold=5000.0):
    """The rule of the authors' code, but for moments of 0."""
    bound = np.sqrt(threshold * moments)
    return np.where((grads**2 > threshold * moments) & (moments > 0), np.sign(grads) * bound, grads)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_rule(dtype):
    grads, moments = GRADS.clip(-6e4, 6e4).astype(dtype), MOMENTS.astype(np.float32)
    expected = spam(grads.astype(np.float64), moments.astype(np.float64)).astype(dtype)
    (clipped,) = gradclip.clip_spikes([grads], [moments])
    assert clipped.dtype == dtype
    np.testing.assert_allclose(
        clipped.astype(np.float64), expected.astype(np.float64), rtol=1e-7 if dtype == np.float64 else 1e-2
    )
    same = grads.astype(np.float64) ** 2 < 4999 * moments
    np.testing.assert_array_equal(clipped[same], grads[same])
    mine = grads.copy()
    gradclip.clip_spikes_({"a": mine}, {"a": moments})
    np.testing.assert_array_equal(mine, clipped)


def test_float32_is_right_to_rounding():
    grads, moments = GRADS.astype(np.float32), MOMENTS.astype(np.float32)
    expected = spam(grads.astype(np.float64), moments.astype(np.float64))
    np.testing.assert_allclose(gradclip.clip_spikes(grads, moments), expected, rtol=3e-7)
    strict = (array_api_strict.asarray(x) for x in (grads, moments))
    np.testing.assert_allclose(np.asarray(gradclip.clip_spikes(*strict)), expected, rtol=3e-7)


def test_special_values():
    grads = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 7.0, 3e300])  # whose square is out of range
    moments = np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1e300])
    clipped = gradclip.clip_spikes(grads, moments, 4.0)
    np.testing.assert_array_equal(clipped, [np.nan, 2.0, -2.0, 0.0, -0.0, 7.0, 2e150])
    assert gradclip.clip_spikes(np.float32([3e38, 1.0]), np.float32([1e38, 1e-38]), 1e4).tolist() == pytest.approx(
        [1e21, 1e-17]
    )


def test_an_element_whose_moment_is_zero_can_learn():
    """In the authors' code its gradient becomes 0, so that the moment stays 0."""
    assert gradclip.clip_spikes(np.array([2.0]), np.zeros(1)) == [2.0]


@pytest.mark.parametrize("threshold", [0.0, np.inf])
def test_thresholds_at_the_ends(threshold):
    clipped = gradclip.clip_spikes(np.array([-2.0, 3.0]), np.ones(2), threshold)
    assert clipped.tolist() == ([-0.0, 0.0] if threshold == 0 else [-2.0, 3.0])


def test_arguments():
    g = np.ones(3)
    with pytest.raises(ValueError, match="threshold=-1, expected a number >= 0"):
        gradclip.clip_spikes(g, g, -1)
    with pytest.raises(ValueError, match=r"grads has shape \(3,\) and its second moment \(2,\), expected equal shapes"):
        gradclip.clip_spikes(g, g[:2])
    with pytest.raises(ValueError, match="second_moments has a different structure from grads"):
        gradclip.clip_spikes([g], [g, g])
    with pytest.raises(TypeError, match="grads has dtype complex128, expected real gradients"):
        gradclip.clip_spikes(g * 1j, g)
    fixed = np.full(3, 9.0)
    fixed.flags.writeable = False
    with pytest.raises(TypeError, match=r"cannot be written, expected writable arrays; use gradclip.clip_spikes\(\)"):
        gradclip.clip_spikes_(fixed, g, 1.0)
