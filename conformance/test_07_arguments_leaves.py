"""Clause 7, continued: a leaf of the wrong kind raises TypeError with its path."""

import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from gradclip.conformance.helpers import IN_PLACE, PURE, make
from gradclip.conformance.targets import Target
from gradclip.conformance.values import normal


class Layer(NamedTuple):
    w: Any
    b: Any


FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    **{name: (lambda api, g, f=f: f(api, g, 1.0)) for name, f in PURE.items()},
    "global_norm": lambda api, g: api.global_norm(g),
    "leaf_norms": lambda api, g: api.leaf_norms(g),
    "norm_partial": lambda api, g: api.norm_partial(g).norm(),
    "clip_per_example": lambda api, g: api.clip_per_example(g, 1.0)[0],
}


def refused(path: str) -> Any:
    """Expect a TypeError that begins with the path of the leaf, and says what was expected."""
    return pytest.raises(TypeError, match=re.escape(path) + r"(?s:.)*expected")


def good(target: Target) -> Any:
    """Return a leaf that is as it should be."""
    return target.make(normal((2, 2), "float32"), "float32")


@pytest.mark.parametrize("kind", ["int32", "bool"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_integers_and_booleans(target: Target, function: str, kind: str) -> None:
    """Integer and boolean leaves are refused: no gradient is one."""
    bad = target.make(np.ones((2, 2)), kind)
    with refused("grads['layer'][1]"):
        target.run(lambda g: FUNCTIONS[function](target.api, g), {"layer": [good(target), bad]})


@pytest.mark.needs("writable")
@pytest.mark.parametrize("function", IN_PLACE)
def test_integers_in_place(target: Target, function: str) -> None:
    """In place, the same."""
    with refused("grads[1]"):
        IN_PLACE[function](target.api, [good(target), target.make(np.ones(2), "int32")], 1.0)


@pytest.mark.parametrize("bad", [1.5, 3, "w", object(), {1.0}], ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("function", ["clip_by_global_norm", "clip_by_value", "global_norm"])
def test_what_is_no_array(target: Target, function: str, bad: object) -> None:
    """Python's numbers, strings, sets and other objects are no leaves."""
    x = good(target)
    with refused("grads['layer'][1]"):
        target.run(lambda g: FUNCTIONS[function](target.api, {"layer": [g, bad]}), x)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_generators(target: Target, function: str) -> None:
    """A generator is refused, rather than exhausted by the norm and then empty when it comes to clipping."""
    x = good(target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # who warns before it is refused, warns with reason
        with pytest.raises(TypeError, match="generator"):
            target.run(lambda g: FUNCTIONS[function](target.api, (y for y in [g])), x)


PATHS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "list": (lambda g, b: [g, b], "grads[1]"),
    "tuple": (lambda g, b: (g, (b, g)), "grads[1][0]"),
    "dict": (lambda g, b: {"w": g, "b": {"x": b}}, "grads['b']['x']"),
    "namedtuple": (lambda g, b: [Layer(g, b)], "grads[0].b"),
    "array": (lambda g, b: b, "grads"),
}


@pytest.mark.parametrize("container", PATHS)
def test_paths(target: Target, container: str) -> None:
    """The path is what one would write in Python to get the leaf."""
    make_container, path = PATHS[container]
    bad = target.make(np.ones(2), "int32")
    with refused(path):
        target.run(lambda g, b: target.api.clip_by_global_norm(make_container(g, b), 1.0), good(target), bad)


@pytest.mark.needs("!numpy", "eager")
def test_mixed_namespaces(target: Target) -> None:
    """Arrays of two namespaces in one container are refused."""
    with pytest.raises(TypeError, match=r"grads\["):
        target.api.clip_by_global_norm([good(target), np.ones(2, np.float32)], 1.0)


def test_adaptive_structures(target: Target) -> None:
    """adaptive_grad_clip: parameters of another structure or other shapes than the gradients are refused."""
    a, b, other = make(target, [(normal((2, 2), "float32"), "float32")] * 2 + [(normal((2, 3), "float32"), "float32")])
    for grads, params in (([a, b], [a]), ([a, b], (a, b)), ({"w": a}, {"v": a}), ([a, b], [a, other])):
        with pytest.raises((ValueError, TypeError), match="expected"):
            target.run(lambda g, p: target.api.adaptive_grad_clip(g, p), grads, params)


def test_adaptive_axes(target: Target) -> None:
    """adaptive_grad_clip: axes that the leaf has not, and axes given twice."""
    x = good(target)
    for axis in (2, -3, (0, 0), (0, -2)):
        with pytest.raises(ValueError, match="axis"):
            target.run(lambda g, a=axis: target.api.adaptive_grad_clip(g, g, axis=a), x)


def test_adaptive_units_of_many_axes(target: Target) -> None:
    """adaptive_grad_clip: more than 5 axes without axis=, of which no layout is known."""
    many = target.make(normal((2,) * 6, "float32"), "float32")
    with pytest.raises(ValueError, match="axis"):
        target.run(lambda g: target.api.adaptive_grad_clip(g, g), many)


def test_examples_of_different_batches(target: Target) -> None:
    """clip_per_example: leaves whose leading axes differ, and 0-d leaves, which have none."""
    three, two, scalar = make(
        target, [(np.ones((3, 2)), "float32"), (np.ones((2, 2)), "float32"), (np.array(1.0), "float32")]
    )
    for grads in ([three, two], [three, scalar], [scalar]):
        with pytest.raises(ValueError, match=r"grads\["):
            target.run(lambda g: target.api.clip_per_example(g, 1.0)[0], grads)
