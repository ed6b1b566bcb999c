"""Clause 15: `scale` divides the gradients in the same pass; the reported norm is that of the unscaled gradients."""

from typing import Any

import numpy as np
import pytest

from gradclip.conformance import oracles
from gradclip.conformance.checks import assert_norm, assert_same_bits, assert_times
from gradclip.conformance.helpers import clip_global, make, number, read
from gradclip.conformance.oracles import coefficient, exact, format_of, norm_dtype
from gradclip.conformance.targets import Target
from gradclip.conformance.values import model, normal

SCALES = (1024.0, 65536.0, 0.125, 1000.0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("max_norm", [1e-3, 1e4, None, float("inf")], ids=["clipped", "unclipped", "None", "inf"])
def test_pure(target: Target, dtype: str, max_norm: float | None, scale: float) -> None:
    """The result is that of dividing first and clipping then, rounded once; also where nothing is clipped."""
    leaves = model(dtype, size=3)
    clipped, norm = clip_global(target, make(target, leaves), max_norm, scale=scale)
    size = oracles.norm([v for v, _ in leaves]) / exact(scale)
    assert_norm(norm, size, norm_dtype([dtype]))
    factor = exact(1) if max_norm in (None, float("inf")) else coefficient(size, max_norm)
    for got, (values, _) in zip(read(target, clipped), leaves, strict=True):
        assert_times(got, values, factor / exact(scale), dtype)


@pytest.mark.needs("writable")
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("max_norm", [1e-3, 1e4], ids=["clipped", "unclipped"])
def test_in_place(target: Target, dtype: str, max_norm: float, scale: float) -> None:
    """In place, the same."""
    leaves = model(dtype, size=3)
    grads = make(target, leaves)
    norm = target.api.clip_by_global_norm_(grads, max_norm, scale=scale)
    size = oracles.norm([v for v, _ in leaves]) / exact(scale)
    assert_norm(number(target, norm), size, norm_dtype([dtype]))
    for got, (values, _) in zip(read(target, grads), leaves, strict=True):
        assert_times(got, values, coefficient(size, max_norm) / exact(scale), dtype)


@pytest.mark.parametrize("max_norm", [1e-3, 1e4])
def test_as_array(target: Target, dtype: str, max_norm: float) -> None:
    """The loss scale of a scaler is a 0-d array on the device."""
    values = normal(6, dtype)
    x, scale = target.make(values, dtype), target.make(np.array(512.0), "float32")

    def clipped(g: Any, s: Any) -> Any:
        return target.api.clip_by_global_norm(g, max_norm, scale=s)

    got, norm = target.run(clipped, x, scale)
    size = oracles.norm([values]) / 512
    assert_norm(number(target, norm), size, norm_dtype([dtype]))
    assert_times(target.read(got), values, coefficient(size, max_norm) / 512, dtype)


def test_one_is_the_identity(target: Target, dtype: str) -> None:
    """scale=1 leaves what is not clipped bit for bit."""
    values = normal(9, dtype)
    (got,), _ = clip_global(target, [target.make(values, dtype)], 1e4, scale=1.0)
    assert_same_bits(target.read(got), values)


def test_unscaled_gradients_below_the_dtype(target: Target, half_dtype: str) -> None:
    """Gradients that half precision could not hold unscaled: the threshold and the norm are right all the same."""
    values = np.array([2.0**-9, -(2.0**-8), 2.0**-10])
    scale = 2.0**30
    (got,), norm = clip_global(target, [target.make(values, half_dtype)], 1e-12, scale=scale)
    size = oracles.norm([values]) / exact(scale)
    assert_norm(norm, size, "float32")
    assert_times(target.read(got), values, coefficient(size, 1e-12) / exact(scale), half_dtype)


def test_norm_is_in_range_when_unscaled(target: Target, real_dtype: str) -> None:
    """Scaled gradients whose norm overflows, of which the unscaled norm does not."""
    values = np.full(4, format_of(real_dtype).largest)
    (got,), norm = clip_global(target, [target.make(values, real_dtype)], 1.0, scale=2.0**20)
    size = oracles.norm([values]) / 2**20
    assert_norm(norm, size, norm_dtype([real_dtype]))
    assert_times(target.read(got), values, coefficient(size, 1.0) / 2**20, real_dtype)


@pytest.mark.parametrize("max_norm", [1e-3, 1e4])
def test_with_eps(target: Target, dtype: str, max_norm: float) -> None:
    """The option eps is added to the unscaled norm."""
    values = normal(6, dtype)
    (got,), _ = clip_global(target, [target.make(values, dtype)], max_norm, scale=64.0, eps=0.5)
    size = oracles.norm([values]) / 64
    assert_times(target.read(got), values, coefficient(size, max_norm, 0.5) / 64, dtype)


@pytest.mark.parametrize("ord", [1.0, 3.0, float("inf")])
def test_orders(target: Target, real_dtype: str, ord: float) -> None:
    """For every order of norm."""
    values = normal(50, real_dtype, size=8.0)
    (got,), norm = clip_global(target, [target.make(values, real_dtype)], 0.25, scale=64.0, ord=ord)
    size = oracles.norm([values], ord) / 64
    assert_norm(norm, size, norm_dtype([real_dtype]))
    assert_times(target.read(got), values, coefficient(size, 0.25) / 64, real_dtype, ord)


def test_nonfinite(target: Target, real_dtype: str) -> None:
    """An overflow in the scaled loss: nonfinite="zero" gives zeros, by default NaN spreads."""
    values = np.array([1.0, np.inf, 2.0])
    zero, norm = clip_global(target, target.make(values, real_dtype), 1.0, scale=1024.0, nonfinite="zero")
    assert norm == np.inf
    assert np.all(target.read(zero) == 0)
    spread, _ = clip_global(target, target.make(values, real_dtype), 1.0, scale=1024.0)
    assert np.array_equal(np.isnan(target.read(spread)), [False, True, False])
