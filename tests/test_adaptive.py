"""Adaptive gradient clipping, against the formula in exact arithmetic."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

import gradclip
from gradclip._adaptive import unit_axes
from tests import exact


def oracle(grad, param, clipping, eps, axes):
    """Brock et al. 2021, equation 3, unit by unit."""
    kept = [axis for axis in range(grad.ndim) if axis not in axes]
    out = np.empty_like(grad)
    for where in np.ndindex(*(grad.shape[axis] for axis in kept)):
        unit = tuple(where[kept.index(axis)] if axis in kept else slice(None) for axis in range(grad.ndim))
        size = max(exact.norm(param[unit].reshape(-1).tolist()), exact.mpmath.mpf(eps))
        limit = exact.mpmath.mpf(clipping) * size
        values = exact.clipped(grad[unit].reshape(-1).tolist(), limit)
        out[unit] = np.reshape([float(v) for v in values], grad[unit].shape)
    return out


@pytest.mark.parametrize(
    ("shape", "axis", "axes"),
    [
        ((), None, ()),
        ((7,), None, (0,)),
        ((1, 7, 1), None, (0, 1, 2)),
        ((6, 5), None, (0,)),
        ((6, 5), 1, (1,)),
        ((6, 5), -1, (1,)),
        ((4, 3, 2), None, (0,)),
        ((4, 3, 2), (1, 2), (1, 2)),
        ((3, 3, 4, 5), None, (0, 1, 2)),
        ((2, 2, 2, 3, 4), None, (0, 1, 2, 3)),
        ((2, 1, 2, 1, 2, 2), (0, 2), (0, 2)),
    ],
)
def test_units_are_clipped_by_their_parameters(shape, axis, axes):
    rng = np.random.default_rng(3)
    grad, param = rng.standard_normal(shape), rng.standard_normal(shape) * 3
    assert unit_axes(shape, axis, list, 0) == axes
    got = gradclip.adaptive_grad_clip([grad], [param], 0.3, axis=axis)[0]
    np.testing.assert_allclose(got, oracle(np.asarray(grad), np.asarray(param), 0.3, 1e-3, axes), rtol=1e-12)
    if shape:
        mine = grad.copy()
        gradclip.adaptive_grad_clip_([mine], [param], 0.3, axis=axis)
        np.testing.assert_array_equal(mine, got)


def test_a_parameter_of_zeros_can_move():
    got = gradclip.adaptive_grad_clip(np.float32([3, 4]), np.zeros(2, np.float32), 0.01, eps=1e-3)
    np.testing.assert_allclose(got, [6e-6, 8e-6], rtol=1e-6)


def test_tiny_gradients_have_no_floor_of_their_own():
    """The published code divides by max(norm, 1e-6), which clips too much below it."""
    got = gradclip.adaptive_grad_clip(np.array([3e-9, 4e-9]), np.array([0.0, 0.0]), 1e-6, eps=1e-3)
    np.testing.assert_allclose(got, [6e-10, 8e-10], rtol=1e-12)


@pytest.mark.parametrize("value", [1e20, 3e38, 1e-30])
def test_any_magnitude(value):
    grad, param = np.float32([[value, 1], [value, 0]]), np.full((2, 2), value, np.float32)
    got = gradclip.adaptive_grad_clip(grad, param, 0.5, eps=0.0)
    np.testing.assert_allclose(got[:, 0], np.float32(value) / 2, rtol=1e-6)


def test_large_leaves_are_worked_on_in_chunks():
    rng = np.random.default_rng(4)
    grad, param = (rng.standard_normal((300, 600), dtype=np.float32) for _ in range(2))
    for axis in (0, 1):
        norms = [np.sqrt(np.square(x, dtype=float).sum(axis=axis, keepdims=True)) for x in (grad, param)]
        want = grad * np.minimum(1, 0.5 * norms[1] / norms[0])
        np.testing.assert_allclose(gradclip.adaptive_grad_clip(grad, param, 0.5, axis=axis), want, rtol=1e-6)


def test_units_below_their_threshold_stay_bit_for_bit():
    grad = np.array([[3.0, 1e-3], [4.0, -0.0]])
    got = gradclip.adaptive_grad_clip(grad, np.ones((2, 2)), 0.5)
    assert got[:, 1].tobytes() == grad[:, 1].tobytes()
    assert gradclip.adaptive_grad_clip(grad, np.ones((2, 2)), math.inf) is grad
    assert gradclip.adaptive_grad_clip(grad, np.ones((2, 2)), 100.0) is grad


@dataclass
class Layer:
    w: object
    b: object


def test_containers_tied_leaves_and_missing_gradients():
    g, p = np.array([3.0, 4.0]), np.array([0.6, 0.8])
    grads = {"a": Layer(g, None), "b": [g, None]}
    params = {"a": Layer(p, None), "b": [p, np.ones(9)]}
    got = gradclip.adaptive_grad_clip(grads, params, 0.5)
    np.testing.assert_allclose(got["a"].w, [0.3, 0.4])
    assert got["a"].w is got["b"][0]
    assert got["a"].b is got["b"][1] is None
    assert gradclip.adaptive_grad_clip([], [], 0.1) == []


def test_bad_arguments():
    g = np.ones((2, 2))
    for clip in (gradclip.adaptive_grad_clip, gradclip.adaptive_grad_clip_):
        with pytest.raises(ValueError, match=r"clipping=-0.1, expected a number >= 0"):
            clip(g, g, -0.1)
        with pytest.raises(ValueError, match=r"eps=-1, expected a finite number >= 0"):
            clip(g, g, eps=-1)
        with pytest.raises(ValueError, match=r"axis=2, expected distinct axes of grads, which has shape \(2, 2\)"):
            clip(g, g, axis=2)
        with pytest.raises(ValueError, match=r"axis=\(0, -2\), expected distinct axes"):
            clip(g, g, axis=(0, -2))
        with pytest.raises(ValueError, match=r"grads\['a'\] has shape \(2, 2\) and its parameter \(4,\)"):
            clip({"a": g}, {"a": np.ones(4)})
        with pytest.raises(ValueError, match=r"grads has 6 axes, expected at most 5 for axis=None"):
            clip(np.ones((2,) * 6), np.ones((2,) * 6))
        with pytest.raises(ValueError, match=r"params has a different structure from grads"):
            clip([g, g.copy()], [g])
        with pytest.raises(TypeError, match=r"params\[0\] is a str, expected an array"):
            clip([g], ["w"])
    assert (g == 1).all()
