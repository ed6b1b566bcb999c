"""Clipping by value, on NumPy."""

import math

import ml_dtypes
import numpy as np
import pytest

import gradclip

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("in_place", [False, True])
def test_elements_move_into_the_interval(dtype, in_place):
    grads = np.array([-3.0, -1.0, -0.0, 0.5, 1.0, 7.0, math.inf, -math.inf, math.nan], dtype)
    if in_place:
        gradclip.clip_by_value_([grads], 1.0)
        got = grads
    else:
        before = grads.tobytes()
        got = gradclip.clip_by_value([grads], 1.0)[0]
        assert grads.tobytes() == before
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.astype(float), [-1, -1, -0.0, 0.5, 1, 1, 1, -1, math.nan])
    assert math.copysign(1, float(got[2])) == -1


def test_two_bounds():
    got = gradclip.clip_by_value(np.array([-3.0, 0.5, 7.0]), 2.0, min_value=0.0)
    np.testing.assert_array_equal(got, [0, 0.5, 2])
    got = gradclip.clip_by_value(np.array([-3.0, 0.5, -7.0]), -1.0, min_value=-5.0)
    np.testing.assert_array_equal(got, [-3, -1, -5])
    np.testing.assert_array_equal(
        gradclip.clip_by_value(np.array([-3.0, 9.0]), np.array(1.0), min_value=np.float32(-2)), [-2, 1]
    )


def test_a_bound_beyond_the_dtype_is_its_largest_finite_number():
    got = gradclip.clip_by_value(np.float16([math.inf, -math.inf, 1]), 1e6)
    np.testing.assert_array_equal(got, [65504, -65504, 1])
    got = gradclip.clip_by_value(np.float16([math.inf, -math.inf]), math.inf)
    np.testing.assert_array_equal(got, [math.inf, -math.inf])


def test_large_and_strided_leaves():
    base = np.random.default_rng(0).standard_normal((300, 700))
    want = np.clip(base[::2, ::-1], -0.5, 0.5)
    np.testing.assert_array_equal(gradclip.clip_by_value(base[::2, ::-1], 0.5), want)
    odd = base[1::2].copy()
    gradclip.clip_by_value_(base[::2, ::-1], 0.5)
    np.testing.assert_array_equal(base[::2, ::-1], want)
    np.testing.assert_array_equal(base[1::2], odd)


@pytest.mark.parametrize("clip", [gradclip.clip_by_value, gradclip.clip_by_value_])
def test_bad_bounds(clip):
    grads = np.ones(3)
    with pytest.raises(ValueError, match=r"max_value=-1.0, expected a number >= 0"):
        clip(grads, -1.0)
    with pytest.raises(ValueError, match=r"max_value=nan, expected"):
        clip(grads, math.nan)
    with pytest.raises(ValueError, match=r"min_value=nan, expected a number"):
        clip(grads, 1.0, min_value=math.nan)
    with pytest.raises(ValueError, match=r"min_value=2 is above max_value=1, .*swap them"):
        clip(grads, 1, min_value=2)
    with pytest.raises(TypeError, match=r"max_value=None is a NoneType"):
        clip(grads, None)
    assert (grads == 1).all()


@pytest.mark.parametrize("clip", [gradclip.clip_by_value, gradclip.clip_by_value_])
def test_complex_numbers_have_no_order(clip):
    grads = {"a": np.full(2, 9.0), "z": np.ones(2, np.complex64)}
    with pytest.raises(TypeError, match=r"grads\['z'\] has dtype complex64, expected real gradients"):
        clip(grads, 1.0)
    assert (grads["a"] == 9).all()
