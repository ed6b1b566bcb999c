"""Clause 7: wrong arguments raise an error that gives the value, what was expected and the remedy."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradclip.conformance.checks import assert_same_bits
from gradclip.conformance.helpers import IN_PLACE, PURE, clip, make, read
from gradclip.conformance.targets import Target
from gradclip.conformance.values import normal

THRESHOLD = {
    "clip_by_global_norm": "max_norm",
    "clip_by_norm": "max_norm",
    "clip_by_rms": "max_rms",
    "clip_by_value": "max_value",
    "adaptive_grad_clip": "clipping",
    "clip_with_norm": "max_norm",
}
NORMS: dict[str, Callable[..., Any]] = {
    "global_norm": lambda api, g, p: api.global_norm(g, ord=p),
    "leaf_norms": lambda api, g, p: api.leaf_norms(g, ord=p),
    "norm_partial": lambda api, g, p: api.norm_partial(g, ord=p).norm(),
    "clip_by_norm": lambda api, g, p: api.clip_by_norm(g, 1.0, ord=p),
    "clip_by_global_norm": lambda api, g, p: api.clip_by_global_norm(g, 1.0, ord=p),
}


def grads_of(target: Target) -> Any:
    """Return gradients that are as they should be."""
    return {"w": target.make(normal((2, 2), "float32"), "float32"), "b": target.make(normal(3, "float32"), "float32")}


def refused(kind: type[Exception], *parts: str) -> Any:
    """Expect an error whose message has these parts, and says what was expected."""
    return pytest.raises(kind, match="".join(f"(?=.*{re.escape(part)})" for part in (*parts, "expected")) + "(?s:.)")


@pytest.mark.parametrize("bad", [-1.0, -math.inf, math.nan, -1e-30])
@pytest.mark.parametrize("function", PURE)
def test_threshold_out_of_range(target: Target, function: str, bad: float) -> None:
    """A negative or NaN threshold is a ValueError: it would turn or destroy the gradients."""
    with refused(ValueError, THRESHOLD[function], repr(bad)):
        clip(target, function, grads_of(target), bad)


@pytest.mark.parametrize("bad", ["1.0", True, [1.0], 1j, {}], ids=repr)
@pytest.mark.parametrize("function", PURE)
def test_threshold_of_another_kind(target: Target, function: str, bad: object) -> None:
    """A threshold that is no number is a TypeError: strings, booleans, lists, complex numbers."""
    with refused(TypeError, THRESHOLD[function]):
        clip(target, function, grads_of(target), bad)


@pytest.mark.needs("writable")
@pytest.mark.parametrize("bad", [-1.0, math.nan, "1.0", True], ids=repr)
@pytest.mark.parametrize("function", IN_PLACE)
def test_threshold_in_place(target: Target, function: str, bad: object) -> None:
    """In place, the same."""
    with refused(TypeError if isinstance(bad, str | bool) else ValueError, THRESHOLD[function.rstrip("_")]):
        IN_PLACE[function](target.api, grads_of(target), bad)


def test_threshold_of_examples(target: Target) -> None:
    """Per example, the same."""
    grads = grads_of(target)["w"]
    for bad, kind in ((-1.0, ValueError), (math.nan, ValueError), ("1", TypeError), (True, TypeError)):
        with refused(kind, "max_norm"):
            target.run(lambda g, m=bad: target.api.clip_per_example(g, m)[0], grads)


@pytest.mark.needs("eager", "host")
@pytest.mark.parametrize("function", PURE)
def test_threshold_as_array(target: Target, function: str) -> None:
    """A 0-d array is refused as its number would be, where its value is at hand; so is an array that is not 0-d."""
    negative, several = make(target, [(np.array(-1.0), "float32"), (np.ones(2), "float32")])
    with refused(ValueError, THRESHOLD[function]):
        PURE[function](target.api, grads_of(target), negative)
    with refused(TypeError, THRESHOLD[function]):
        PURE[function](target.api, grads_of(target), several)


@pytest.mark.parametrize(
    "value", [1, 1.0, np.float32(1), np.float64(1), np.int64(1), np.array(1.0)], ids=lambda v: type(v).__name__
)
def test_kinds_of_numbers(target: Target, value: object) -> None:
    """Python's and NumPy's numbers are thresholds alike."""
    grads = [target.make(np.array([3.0, 4.0]), "float32")]
    (got,) = clip(target, "clip_by_global_norm", grads, value)
    assert np.allclose(target.read(got), [0.6, 0.8])


@pytest.mark.parametrize("bad", [0.0, -1.0, -math.inf, math.nan])
@pytest.mark.parametrize("function", NORMS)
def test_order_out_of_range(target: Target, function: str, bad: float) -> None:
    """Orders of 0 and below, and NaN, are no norms: ValueError."""
    with refused(ValueError, "ord", repr(bad)):
        target.run(lambda g: NORMS[function](target.api, g, bad), grads_of(target))


@pytest.mark.parametrize("bad", ["2", None, True, "fro"], ids=repr)
@pytest.mark.parametrize("function", NORMS)
def test_order_of_another_kind(target: Target, function: str, bad: object) -> None:
    """Orders that are no numbers are a TypeError."""
    with refused(TypeError, "ord"):
        target.run(lambda g: NORMS[function](target.api, g, bad), grads_of(target))


OPTIONS = [
    ({"nonfinite": "ignore"}, ValueError),
    ({"nonfinite": None}, ValueError),
    ({"scale": 0.0}, ValueError),
    ({"scale": -2.0}, ValueError),
    ({"scale": math.inf}, ValueError),
    ({"scale": math.nan}, ValueError),
    ({"scale": "8"}, TypeError),
    ({"eps": -1e-6}, ValueError),
    ({"eps": math.nan}, ValueError),
    ({"eps": "small"}, TypeError),
]


@pytest.mark.parametrize(("option", "kind"), OPTIONS, ids=lambda value: str(value))
def test_options(target: Target, option: dict[str, Any], kind: type[Exception]) -> None:
    """Unknown policies, and a scale or an eps that is out of range or no number."""
    with refused(kind, next(iter(option))):
        target.run(lambda g: target.api.clip_by_global_norm(g, 1.0, **option), grads_of(target))


def test_unknown_keyword(target: Target) -> None:
    """Names that there are not are a TypeError, as of any Python function."""
    with pytest.raises(TypeError):
        target.run(lambda g: target.api.clip_by_global_norm(g, 1.0, norm_type=2), grads_of(target))


def test_bounds_by_value(target: Target) -> None:
    """By value: bounds that are NaN, or of which the lower is the higher."""
    for low, high in ((2.0, 1.0), (math.nan, 1.0), (0.0, math.nan)):
        with refused(ValueError, "min_value" if not math.isnan(high) else "max_value"):
            target.run(lambda g, a=low, b=high: target.api.clip_by_value(g, b, min_value=a), grads_of(target))


@pytest.mark.parametrize("bad", [-0.5, "1.0"])
def test_known_norm(target: Target, bad: object) -> None:
    """clip_with_norm: a norm that cannot be one."""
    with refused(TypeError if isinstance(bad, str) else ValueError, "norm"):
        target.run(lambda g: target.api.clip_with_norm(g, 1.0, bad), grads_of(target))


@pytest.mark.parametrize("ord", [1.0, math.inf])
def test_partials_of_different_orders(target: Target, ord: float) -> None:
    """Partials of different orders do not merge."""
    grads = grads_of(target)
    with refused(ValueError, "ord"):
        target.run(lambda g: target.api.norm_partial(g).merge(target.api.norm_partial(g, ord=ord)).norm(), grads)


@pytest.mark.parametrize("function", PURE)
def test_no_threshold_and_zero(target: Target, function: str) -> None:
    """0 gives zeros, and inf is the identity."""
    grads = grads_of(target)
    before = read(target, grads)
    assert all(np.all(x == 0) for x in read(target, clip(target, function, grads, 0.0)))
    for got, values in zip(read(target, clip(target, function, grads, math.inf)), before, strict=True):
        assert_same_bits(got, values)
