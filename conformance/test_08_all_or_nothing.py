"""Clause 8: an error is raised before the first write, always."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradclip.conformance.checks import assert_same_bits
from gradclip.conformance.helpers import CLIPS, IN_PLACE, make, read
from gradclip.conformance.targets import Target
from gradclip.conformance.values import normal

pytestmark = pytest.mark.needs("writable")


def good(target: Target) -> list[Any]:
    """Return leaves that every function would clip."""
    return make(target, [(normal(5, "float32", 1), "float32"), (normal((2, 3), "float32", 2), "float32")])


def assert_untouched(target: Target, grads: list[Any], kinds: Any, call: Callable[[], Any]) -> None:
    """Assert that a call raises, and leaves all gradients as they were."""
    before = [x.copy() for x in read(target, grads)]
    with pytest.raises(kinds):
        call()
    for got, values in zip(read(target, grads), before, strict=True):
        assert_same_bits(got, values)


@pytest.mark.parametrize("function", IN_PLACE)
def test_wrong_leaf_after_good_ones(target: Target, function: str) -> None:
    """A leaf of integers behind good ones: they are not clipped either."""
    grads = good(target)
    bad = [*grads, target.make(np.ones(2), "int32")]
    assert_untouched(target, grads, TypeError, lambda: IN_PLACE[function](target.api, bad, CLIPS))


@pytest.mark.parametrize("function", IN_PLACE)
def test_no_array_after_good_ones(target: Target, function: str) -> None:
    """A Python number behind good leaves."""
    grads = good(target)
    assert_untouched(target, grads, TypeError, lambda: _without_copies(target, function, [*grads, 1.0]))


def _without_copies(target: Target, function: str, grads: list[Any]) -> Any:
    if function == "adaptive_grad_clip_":
        return target.api.adaptive_grad_clip_(grads, grads, CLIPS)
    if function == "clip_with_norm_":
        return target.api.clip_with_norm_(grads, CLIPS, 1.0)
    return IN_PLACE[function](target.api, grads, CLIPS)


@pytest.mark.parametrize("bad", [-1.0, math.nan, "1"], ids=repr)
@pytest.mark.parametrize("function", IN_PLACE)
def test_wrong_threshold(target: Target, function: str, bad: object) -> None:
    """A threshold that cannot be right."""
    grads = good(target)
    assert_untouched(target, grads, (TypeError, ValueError), lambda: IN_PLACE[function](target.api, grads, bad))


@pytest.mark.parametrize("options", [{"ord": 0}, {"nonfinite": "?"}, {"scale": 0.0}, {"eps": -1.0}], ids=str)
def test_wrong_option(target: Target, options: dict[str, Any]) -> None:
    """Options that cannot be right."""
    grads = good(target)
    call = lambda: target.api.clip_by_global_norm_(grads, CLIPS, **options)  # noqa: E731  # a name for what is called
    assert_untouched(target, grads, ValueError, call)


@pytest.mark.needs("numpy")
@pytest.mark.parametrize("function", IN_PLACE)
def test_read_only_after_good_ones(target: Target, function: str) -> None:
    """A leaf that cannot be written behind leaves that can."""
    grads = good(target)
    grads[1].flags.writeable = False
    assert_untouched(target, grads, TypeError, lambda: IN_PLACE[function](target.api, grads, CLIPS))


@pytest.mark.needs("views")
@pytest.mark.parametrize("function", IN_PLACE)
def test_overlap_after_good_ones(target: Target, function: str) -> None:
    """Leaves that share some elements behind one that does not."""
    first, base = make(target, [(normal(5, "float32", 1), "float32"), (normal(9, "float32", 2), "float32")])
    grads = [first, base[:6], base[4:]]
    assert_untouched(target, grads, ValueError, lambda: IN_PLACE[function](target.api, grads, CLIPS))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nonfinite_error(target: Target, bad: float) -> None:
    """nonfinite="error" on the last element of the last leaf."""
    grads = [*good(target), target.make(np.array([1.0, bad]), "float32")]
    with target.asking():
        call = lambda: target.api.clip_by_global_norm_(grads, CLIPS, nonfinite="error")  # noqa: E731
        assert_untouched(target, grads, FloatingPointError, call)


@pytest.mark.needs("complex")
def test_complex_by_value(target: Target) -> None:
    """A complex leaf behind real ones cannot be clipped by value."""
    grads = [*good(target), target.make(normal(3, "complex64"), "complex64")]
    assert_untouched(target, grads, TypeError, lambda: target.api.clip_by_value_(grads, CLIPS))


def test_adaptive_shapes(target: Target) -> None:
    """A parameter of another shape behind good pairs, a missing one, and an axis that only the second leaf lacks."""
    grads = good(target)
    other = target.make(np.ones((3, 2)), "float32")
    clip_ = target.api.adaptive_grad_clip_
    for params, axis in (
        ([grads[0] * 1, other], None),
        ([grads[0] * 1], None),
        ([x * 1 for x in reversed(grads)], None),
    ):
        assert_untouched(target, grads, ValueError, lambda p=params, a=axis: clip_(grads, p, CLIPS, axis=a))
    swapped = grads[::-1]
    assert_untouched(target, swapped, ValueError, lambda: clip_(swapped, [x * 1 for x in swapped], CLIPS, axis=1))
