"""Clipping each leaf by its own norm or root mean square, on NumPy."""

import math

import numpy as np
import pytest

import gradclip
from tests import exact


@pytest.mark.parametrize("ord", [0.5, 1.0, 2.0, 3.0, math.inf])
def test_each_leaf_by_its_own_norm(ord):
    rng = np.random.default_rng(0)
    grads = {"a": rng.standard_normal(50), "b": (rng.standard_normal((5, 5)) * 1e-3, np.array([-7.0])), "c": None}
    clipped = gradclip.clip_by_norm(grads, 0.3, ord=ord)
    assert clipped["c"] is None
    assert ord < 1 or clipped["b"][0] is grads["b"][0], "below the threshold"
    for got, leaf in ((clipped["a"], grads["a"]), (clipped["b"][1], grads["b"][1])):
        want = exact.clipped(leaf.tolist(), 0.3, ord)
        np.testing.assert_allclose(got, [float(v) for v in want], rtol=1e-13)


def test_in_place_writes_only_where_it_clips():
    grads = [np.array([3.0, 4.0]), np.array([0.1, 0.2])]
    grads[1].setflags(write=True)
    before = grads[1].tobytes()
    gradclip.clip_by_norm_(grads, 1.0)
    np.testing.assert_allclose(grads[0], [0.6, 0.8])
    assert grads[1].tobytes() == before


@pytest.mark.parametrize("value", [1e20, 1e-30, 3e38])
def test_leaves_far_apart_in_magnitude(value):
    grads = [np.float32([value] * 4), np.float32([2.0]), np.zeros(3, np.float32)]
    clipped = gradclip.clip_by_norm(grads, value / 1e3 if value < 1 else 1.0)
    limit = value / 1e3 if value < 1 else 1.0
    np.testing.assert_allclose(clipped[0], limit / 2, rtol=1e-6)
    np.testing.assert_allclose(clipped[1], limit, rtol=1e-6)
    assert (clipped[2] == 0).all()


def test_a_nan_stays_in_its_leaf():
    clipped = gradclip.clip_by_norm([np.array([math.nan, 1.0]), np.array([3.0, 4.0])], 1.0)
    assert np.isnan(clipped[0]).all()
    np.testing.assert_allclose(clipped[1], [0.6, 0.8])


def test_rms_is_the_norm_over_the_root_of_the_size():
    rng = np.random.default_rng(1)
    grads = [rng.standard_normal((30, 40)).astype(np.float32), rng.standard_normal(7) * 1e-4, np.zeros((0, 2))]
    clipped = gradclip.clip_by_rms(grads, 0.25)
    assert math.sqrt(float(np.mean(np.square(clipped[0], dtype=float)))) == pytest.approx(0.25, rel=1e-6)
    assert clipped[1] is grads[1]
    mine = [g.copy() for g in grads]
    gradclip.clip_by_rms_(mine, 0.25)
    for a, b in zip(mine, clipped, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("none", [None, math.inf])
def test_no_threshold_no_change(none):
    grads = [np.array([3.0, math.inf]), np.zeros(0)]
    assert all(a is b for a, b in zip(gradclip.clip_by_norm(grads, none), grads, strict=True))
    assert all(a is b for a, b in zip(gradclip.clip_by_rms(grads, none), grads, strict=True))
    assert gradclip.clip_by_norm([], 1.0) == []
    assert gradclip.clip_by_norm_({}, 1.0) is None


def test_thresholds_are_checked():
    for clip in (gradclip.clip_by_norm, gradclip.clip_by_norm_):
        with pytest.raises(ValueError, match=r"max_norm=-1.0, expected a number >= 0"):
            clip(np.ones(3), -1.0)
    for clip in (gradclip.clip_by_rms, gradclip.clip_by_rms_):
        with pytest.raises(ValueError, match=r"max_rms=nan, expected a number >= 0"):
            clip(np.ones(3), math.nan)
