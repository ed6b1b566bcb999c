"""Clause 10: by value, NaN stays NaN, ±inf goes to the bounds, and complex gradients raise TypeError."""

import math

import numpy as np
import pytest

from conformance.checks import assert_same_bits
from conformance.helpers import make, read
from conformance.oracles import Values, format_of
from conformance.targets import Target
from conformance.values import normal, representable


def clamped(target: Target, values: Values, dtype: str, high: object, **options: object) -> Values:
    """Return what clip_by_value makes of one leaf."""
    (got,) = read(
        target, target.run(lambda g: target.api.clip_by_value(g, high, **options), make(target, [(values, dtype)]))
    )
    return got


def test_interval(target: Target, real_dtype: str) -> None:
    """Elements outside move to the nearest bound, those inside keep their bits, the sign of zero too."""
    values = representable([-7.0, -0.5, -0.25, -0.0, 0.0, 0.25, 0.5, 3.0], real_dtype)
    assert_same_bits(clamped(target, values, real_dtype, 0.5), np.clip(values, -0.5, 0.5))


def test_nan_and_infinities(target: Target, real_dtype: str) -> None:
    """NaN is in no interval and stays; the infinities go to the bounds."""
    values = np.array([math.nan, math.inf, -math.inf, 1.0])
    assert_same_bits(clamped(target, values, real_dtype, 2.0), np.array([math.nan, 2.0, -2.0, 1.0]))


def test_two_bounds(target: Target, real_dtype: str) -> None:
    """With min_value the interval need not be symmetric, nor contain zero."""
    values = np.array([-3.0, 0.5, 7.0])
    assert_same_bits(clamped(target, values, real_dtype, 2.0, min_value=0.0), np.array([0.0, 0.5, 2.0]))
    assert_same_bits(clamped(target, values, real_dtype, -1.0, min_value=-2.0), np.array([-2.0, -1.0, -1.0]))


def test_no_bound(target: Target, real_dtype: str) -> None:
    """Infinite bounds leave everything as it is, the infinities too."""
    values = np.array([math.nan, math.inf, -math.inf, 1.0])
    assert_same_bits(clamped(target, values, real_dtype, math.inf), values)


def test_zero_bound(target: Target, real_dtype: str) -> None:
    """max_value=0 gives zeros."""
    got = clamped(target, np.array([-2.0, 0.0, 3.0]), real_dtype, 0.0)
    assert np.array_equal(got, np.zeros(3))


def test_bound_beyond_the_dtype(target: Target, real_dtype: str) -> None:
    """A finite bound that the dtype cannot represent is its largest number: nothing finite changes, inf becomes it."""
    largest = format_of(real_dtype).largest
    if real_dtype == "float64":
        return
    values = np.array([math.inf, -math.inf, largest, 1.0])
    assert_same_bits(clamped(target, values, real_dtype, 1e300), np.array([largest, -largest, largest, 1.0]))


def test_bounds_as_arrays(target: Target, real_dtype: str) -> None:
    """Bounds may be 0-d arrays."""
    values, bound = np.array([-3.0, 0.5, 7.0]), target.make(np.array(2.0), "float32")
    got = target.run(
        lambda g, b: target.api.clip_by_value(g, b, min_value=-1.0), target.make(values, real_dtype), bound
    )
    assert_same_bits(target.read(got), np.array([-1.0, 0.5, 2.0]))


@pytest.mark.needs("writable")
def test_in_place(target: Target, real_dtype: str) -> None:
    """In place as well, over more than a chunk."""
    values = normal((300, 301), real_dtype)
    values[0, :3] = [math.nan, math.inf, -math.inf]
    x = target.make(values, real_dtype)
    assert target.api.clip_by_value_([x], 0.5) is None
    assert_same_bits(target.read(x), np.clip(values, -0.5, 0.5))


def test_complex(target: Target, complex_dtype: str) -> None:
    """Complex numbers have no order: TypeError, with the path of the leaf and what to do instead."""
    x = target.make(normal(3, complex_dtype), complex_dtype)
    with pytest.raises(TypeError, match=r"grads\['z'\].*complex.*clip by norm"):
        target.run(lambda g: target.api.clip_by_value(g, 1.0), {"z": x})
