"""Clause 15: ``scale`` divides the gradients in the same pass; the norm reported is the unscaled one."""

import math

import numpy as np
import pytest

from conformance import oracles
from conformance.checks import assert_norm, assert_same_bits, assert_times
from conformance.helpers import clip_global, make, number, read
from conformance.oracles import coefficient, exact, norm_dtype
from conformance.targets import Target
from conformance.values import normal, representable

SCALES = (2.0**16, 2.0**-7, 1000.0)


@pytest.mark.parametrize("max_norm", [0.5, 1e4, None])
@pytest.mark.parametrize("scale", SCALES)
def test_scaled_gradients(target: Target, dtype: str, scale: float, max_norm: float | None) -> None:
    """Gradients that are ``scale`` times too large come out divided, and clipped as the true ones would be."""
    size = 1e-3 if dtype == "float16" else 1.0
    parts = [
        normal(shape, dtype, seed, size=scale * size if dtype != "float16" else 10.0)
        for seed, shape in enumerate(((5,), (2, 3)))
    ]
    clipped, norm = clip_global(target, make(target, [(p, dtype) for p in parts]), max_norm, scale=scale)
    true = oracles.norm(parts) / exact(scale)
    assert_norm(norm, true, norm_dtype([dtype]))
    factor = (1 if max_norm is None else coefficient(true, max_norm)) / exact(scale)
    for got, part in zip(read(target, clipped), parts, strict=True):
        assert_times(got, part, factor, dtype)


def test_scale_as_array(target: Target, dtype: str) -> None:
    """The scale may be a 0-d array, as a gradient scaler keeps it."""
    values, scale = normal(6, dtype, size=8.0), target.make(np.array(8.0), "float32")
    clipped, norm = target.run(
        lambda g, s: target.api.clip_by_global_norm([g], 0.5, scale=s), target.make(values, dtype), scale
    )
    true = oracles.norm([values]) / 8
    assert_norm(number(target, norm), true, norm_dtype([dtype]))
    assert_times(target.read(clipped[0]), values, coefficient(true, 0.5) / 8, dtype)


@pytest.mark.parametrize("ord", [1.0, 3.0, math.inf])
def test_orders(target: Target, ord: float) -> None:
    """For every order of norm."""
    values = normal(50, "float32", size=2.0**12)
    (got,), norm = clip_global(target, [target.make(values, "float32")], 0.25, scale=2.0**12, ord=ord)
    true = oracles.norm([values], ord) / 2**12
    assert_norm(norm, true, "float32")
    assert_times(target.read(got), values, coefficient(true, 0.25) / 2**12, "float32")


def test_overflow_of_scaled_gradients(target: Target) -> None:
    """A scaled norm beyond float32 is no overflow if the true one is within."""
    values = representable([2e38, 2e38, -2e38], "float32")
    (got,), norm = clip_global(target, [target.make(values, "float32")], 1.0, scale=2.0**16)
    true = oracles.norm([values]) / 2**16
    assert_norm(norm, true, "float32")
    assert_times(target.read(got), values, coefficient(true, 1.0) / 2**16, "float32")


@pytest.mark.needs("writable")
def test_in_place(target: Target) -> None:
    """In place as well, clipped or not."""
    for max_norm in (0.5, 1e4):
        values = normal(40, "float32", size=128.0)
        x = target.make(values, "float32")
        norm = number(target, target.api.clip_by_global_norm_([x], max_norm, scale=128.0))
        true = oracles.norm([values]) / 128
        assert_norm(norm, true, "float32")
        assert_times(target.read(x), values, coefficient(true, max_norm) / 128, "float32")


def test_found_infinite(target: Target) -> None:
    """Scaled gradients that overflowed: with "zero" the step is lost, and the norm tells it."""
    values = np.array([1.0, np.inf, 2.0])
    (got,), norm = clip_global(target, [target.make(values, "float32")], 1.0, scale=2.0**16, nonfinite="zero")
    assert norm == math.inf
    assert_same_bits(target.read(got), np.zeros(3))
