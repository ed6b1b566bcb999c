"""Clause 1, continued: what comes out has the structure, shapes, dtypes and devices of what went in."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from gradclip.conformance import oracles, trees
from gradclip.conformance.checks import assert_norm, assert_same_bits, assert_times
from gradclip.conformance.helpers import CLIPS, LEAVES, PURE, clip, make, number
from gradclip.conformance.targets import Target
from gradclip.conformance.values import SHAPES, is_complex, model, normal


class Pair(NamedTuple):
    w: Any
    b: Any


@dataclass
class Layer:
    w: Any
    b: Any


@dataclass(frozen=True)
class Frozen:
    w: Any
    b: Any


CONTAINERS = {
    "list": lambda a, b, c: [a, b, c],
    "tuple": lambda a, b, c: (a, b, c),
    "namedtuple": lambda a, b, c: [Pair(a, b), c],
    "dict": lambda a, b, c: {"b": a, "a": b, "c": c},
    "ordered dict": lambda a, b, c: OrderedDict([("b", a), ("a", b), ("c", c)]),
    "dataclass": lambda a, b, c: Layer(a, [b, c]),
    "frozen dataclass": lambda a, b, c: {"layer": Frozen(a, b), "head": c},
    "None": lambda a, b, c: [a, None, {"w": b, "b": None}, (c, None)],
    "nested": lambda a, b, c: {"x": [(a, {"y": Layer([b], Pair(c, None))})]},
}


def shape_of(tree: Any) -> Any:
    """Return a container with a mark in place of each array, to compare structures by."""
    return trees.rebuild(tree, lambda _: "array")


@pytest.mark.parametrize("function", PURE)
@pytest.mark.parametrize("container", CONTAINERS)
def test_structure(target: Target, container: str, function: str) -> None:
    """Every container comes back as one of its own kind, with None where None was, and the leaves in their places."""
    parts = [normal(n, "float32", seed=n) for n in (2, 3, 4)]
    grads = CONTAINERS[container](*make(target, [(p, "float32") for p in parts]))
    alone = clip(target, function, make(target, [(p, "float32") for p in parts]), CLIPS)
    clipped = clip(target, function, grads, CLIPS)
    assert shape_of(clipped) == shape_of(grads)
    for leaf, one in zip(trees.arrays(clipped), trees.arrays(CONTAINERS[container](*alone)), strict=True):
        assert np.allclose(target.read(leaf), target.read(one), rtol=1e-6)


@pytest.mark.parametrize("container", CONTAINERS)
def test_norms_of_containers(target: Target, container: str) -> None:
    """Norms look into every container, and leaf_norms gives back the container."""
    parts = [normal(n, "float32", seed=n) for n in (2, 3, 4)]
    grads = CONTAINERS[container](*make(target, [(p, "float32") for p in parts]))
    norm, norms = target.run(lambda g: (target.api.global_norm(g), target.api.leaf_norms(g)), grads)
    assert_norm(number(target, norm), oracles.norm(parts), "float32")
    assert shape_of(norms) == shape_of(grads)


def test_single_array(target: Target, dtype: str) -> None:
    """An array by itself is a container of one leaf."""
    values = normal((2, 3), dtype)
    clipped, norm = target.run(lambda g: target.api.clip_by_global_norm(g, 0.5), target.make(values, dtype))
    assert target.dtype(norm) == oracles.norm_dtype([dtype])
    assert_times(target.read(clipped), values, oracles.coefficient(oracles.norm([values]), 0.5), dtype)


@pytest.mark.parametrize("function", PURE)
@pytest.mark.parametrize("limit", [CLIPS, LEAVES], ids=["clipped", "unclipped"])
def test_shapes_and_dtypes(target: Target, function: str, limit: float) -> None:
    """Each leaf keeps its shape, its dtype and its namespace, clipped or not, beside leaves of other dtypes."""
    dtypes = [d for d in target.dtypes if not (function == "clip_by_value" and is_complex(d))]
    for shift in range(len(dtypes)):
        leaves = model(dtypes[shift:] + dtypes[:shift])
        grads = make(target, leaves)
        clipped = clip(target, function, grads, limit)
        assert [x.shape for x in clipped] == list(SHAPES)
        assert [target.dtype(x) for x in clipped] == [dtype for _, dtype in leaves]
        assert {type(x) for x in clipped} == {type(x) for x in grads}


@pytest.mark.parametrize("function", PURE)
def test_input_is_not_touched(target: Target, function: str) -> None:
    """Pure functions never write to what they are given, and clipped leaves have memory of their own."""
    leaves = [(normal(shape, "float32", seed=7), "float32") for shape in SHAPES]
    grads = make(target, leaves)
    clipped = clip(target, function, grads, CLIPS)
    if "writable" in target.traits:
        for x in clipped:
            if x.shape != (0,) and 0 not in x.shape:
                x[...] = x * 0
    for x, (values, _) in zip(grads, leaves, strict=True):
        assert_same_bits(target.read(x), values)
