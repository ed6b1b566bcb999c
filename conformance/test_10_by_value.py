"""Clause 10: by value, NaN stays NaN, ±inf goes to the bounds, and complex numbers are refused."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradclip.conformance.checks import assert_same_bits
from gradclip.conformance.helpers import examples
from gradclip.conformance.oracles import exact, format_of, round_to
from gradclip.conformance.targets import Target
from gradclip.conformance.values import normal, spread

VALUES = np.array([-3.0, -1.0, -0.5, -0.0, 0.0, 0.25, 1.0, 7.0, math.inf, -math.inf, math.nan])
BOUNDS = [
    (1.0, None),
    (0.1, None),
    (0.0, None),
    (math.inf, None),
    (2.0, -0.5),
    (-0.25, -0.5),
    (math.inf, -1.0),
    (0.5, -math.inf),
]


def expected(values: np.ndarray, high: float, low: float | None, dtype: str) -> np.ndarray:
    """Return values within bounds that are rounded to the dtype, and no larger than its largest finite number."""
    low = -high if low is None else low
    most = format_of(dtype).largest
    ends = [x if math.isinf(x) else min(max(round_to(exact(x), dtype), -most), most) for x in (low, high)]
    return np.where(values < ends[0], ends[0], np.where(values > ends[1], ends[1], values))  # NaN is on neither side


def clip(target: Target, x: Any, high: Any, low: Any = None) -> Any:
    return target.run(lambda g: target.api.clip_by_value(g, high, min_value=low), x)


@pytest.mark.parametrize(("high", "low"), BOUNDS)
def test_pure(target: Target, real_dtype: str, high: float, low: float | None) -> None:
    """Each element by itself; NaN stays, inf goes to a bound, and what is within keeps its bits."""
    got = target.read(clip(target, target.make(VALUES, real_dtype), high, low))
    right = expected(VALUES, high, low, real_dtype)
    assert np.array_equal(got, right, equal_nan=True), f"{got} instead of {right}"


@pytest.mark.needs("writable")
@pytest.mark.parametrize(("high", "low"), BOUNDS)
def test_in_place(target: Target, real_dtype: str, high: float, low: float | None) -> None:
    """In place, the same; nothing is returned."""
    x = target.make(VALUES, real_dtype)
    assert target.api.clip_by_value_([x], high, min_value=low) is None
    assert np.array_equal(target.read(x), expected(VALUES, high, low, real_dtype), equal_nan=True)


@pytest.mark.needs("writable")
def test_in_place_over_many_chunks(target: Target, real_dtype: str) -> None:
    """In place over more than is looked at at a time; what needs no clipping keeps its bits."""
    values = normal((300, 301), real_dtype)
    values[0, :3] = [math.nan, math.inf, -math.inf]
    x = target.make(values, real_dtype)
    target.api.clip_by_value_([x], 0.5)
    assert_same_bits(target.read(x), np.clip(values, -0.5, 0.5))


def test_within_bounds(target: Target, real_dtype: str) -> None:
    """What is within the bounds keeps its bits, negative zeros and numbers at the bounds too."""
    values = np.concatenate([spread(64, real_dtype), [0.0, -0.0, 1.0, -1.0]])
    assert_same_bits(target.read(clip(target, target.make(values, real_dtype), 1.0)), values)


@pytest.mark.parametrize("bound", [1e5, 1e39, 1e308])
def test_bound_beyond_the_dtype(target: Target, real_dtype: str, bound: float) -> None:
    """A finite bound beyond a dtype's range stops inf at its largest finite number: the result is within the bounds."""
    values = np.array([1.0, math.inf, -math.inf, math.nan, format_of(real_dtype).largest])
    got = target.read(clip(target, target.make(values, real_dtype), bound))
    assert np.array_equal(got, expected(values, bound, None, real_dtype), equal_nan=True)


def test_complex(target: Target, complex_dtype: str) -> None:
    """Complex numbers have no order: TypeError with the path, also beside real leaves."""
    bad = target.make(normal(3, complex_dtype), complex_dtype)
    good = target.make(normal(3, "float32"), "float32")
    with pytest.raises(TypeError, match=r"grads\[1\](?s:.)*complex"):
        target.run(lambda g: target.api.clip_by_value(g, 1.0), [good, bad])
    if "writable" in target.traits:
        with pytest.raises(TypeError, match=r"grads\[1\](?s:.)*complex"):
            target.api.clip_by_value_([good, bad], 1.0)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (1, 1), (5, 2, 3)], ids=str)
def test_shapes(target: Target, real_dtype: str, shape: tuple[int, ...]) -> None:
    """Empty leaves, and leaves of several axes."""
    values = normal(shape, real_dtype)
    got = target.read(clip(target, [target.make(values, real_dtype)], 0.5)[0])
    assert_same_bits(got, expected(values, 0.5, None, real_dtype))


def test_bounds_as_arrays(target: Target, real_dtype: str) -> None:
    """The bounds may be 0-d arrays."""
    x, high, low = (
        target.make(np.array(v), d) for v, d in ((VALUES, real_dtype), (0.5, "float32"), (-0.25, "float32"))
    )
    got = target.run(lambda g, a, b: target.api.clip_by_value(g, b, min_value=a), x, low, high)
    assert np.array_equal(target.read(got), expected(VALUES, 0.5, -0.25, real_dtype), equal_nan=True)
    alone = target.run(lambda g, b: target.api.clip_by_value(g, b), x, high)
    assert np.array_equal(target.read(alone), expected(VALUES, 0.5, None, real_dtype), equal_nan=True)


@pytest.mark.needs("quick")
@examples
@given(data=st.data())
def test_any_values(target: Target, data: st.DataObject) -> None:
    """Any numbers and bounds."""
    dtype = data.draw(st.sampled_from([d for d in target.dtypes if not d.startswith("complex")]))
    values = np.array(data.draw(st.lists(st.sampled_from([*spread(9, dtype).tolist(), *VALUES.tolist()]), max_size=8)))
    low, high = sorted(data.draw(st.lists(st.floats(-2, 2), min_size=2, max_size=2)))
    got = target.read(clip(target, target.make(values, dtype), high, low))
    assert np.array_equal(got, expected(values, high, low, dtype), equal_nan=True)
