"""Clause 11: a leaf that is passed twice counts once and is scaled once; overlapping leaves are handled or refused."""

from typing import Any

import numpy as np
import pytest

from conformance import oracles, trees
from conformance.checks import assert_norm, assert_same_bits, assert_times
from conformance.helpers import CLIPS, IN_PLACE, PURE, clip, clip_global, make, number, read
from conformance.oracles import coefficient
from conformance.targets import Target
from conformance.values import normal


def tied(x: Any, other: Any) -> Any:
    """Return a container in which one array stands in three places."""
    return {"embedding": x, "layers": [other, {"tied": x}], "head": (x,)}


def test_norm_of_tied_leaves(target: Target, dtype: str) -> None:
    """The norm counts a tied leaf once, as the model has it once."""
    parts = [normal((3, 2), dtype, 1), normal(4, dtype, 2)]
    norm, leaf_norms = target.run(
        lambda g: (target.api.global_norm(g), target.api.leaf_norms(g)),
        tied(*make(target, [(p, dtype) for p in parts])),
    )
    assert_norm(number(target, norm), oracles.norm(parts), oracles.norm_dtype([dtype]))
    assert len(trees.arrays(leaf_norms)) == 4


@pytest.mark.parametrize("function", PURE)
def test_pure_functions_scale_once(target: Target, function: str) -> None:
    """Every place of a tied leaf gets the same result, that of clipping it once."""
    parts = [(normal((3, 2), "float32", 1), "float32"), (normal(4, "float32", 2), "float32")]
    once = read(target, clip(target, function, make(target, parts), 0.125))
    got = clip(target, function, tied(*make(target, parts)), 0.125)
    x, other, second, third = read(target, got)
    for place in (x, second, third):
        np.testing.assert_allclose(place, once[0], rtol=1e-6)
    np.testing.assert_allclose(other, once[1], rtol=1e-6)


@pytest.mark.needs("writable")
@pytest.mark.parametrize("function", IN_PLACE)
def test_in_place_scales_once(target: Target, function: str) -> None:
    """In place, a tied leaf is written once."""
    parts = [(normal((3, 2), "float32", 1), "float32"), (normal(4, "float32", 2), "float32")]
    once, grads = make(target, parts), tied(*make(target, parts))
    IN_PLACE[function](target.api, once, 0.125)
    IN_PLACE[function](target.api, grads, 0.125)
    x, other, second, third = read(target, grads)
    for got, right in ((x, 0), (second, 0), (third, 0), (other, 1)):
        np.testing.assert_allclose(got, target.read(once[right]), rtol=1e-6)


def test_equal_leaves_are_not_the_same(target: Target) -> None:
    """Leaves with equal values in different memory are two."""
    values = normal(5, "float32")
    _, norm = clip_global(target, make(target, [(values, "float32")] * 2), 1.0)
    assert_norm(norm, oracles.norm([values, values]), "float32")


@pytest.mark.needs("writable", "views", "eager")
@pytest.mark.parametrize("function", IN_PLACE)
def test_overlapping_views_are_refused(target: Target, function: str) -> None:
    """Leaves that share some elements: nothing could scale them once each, so nothing is written."""
    values = np.arange(1.0, 11.0)
    for one, other in ((slice(0, 6), slice(5, 10)), (slice(None), slice(2, 4)), (slice(0, 9, 2), slice(0, 9, 4))):
        x = target.make(values, "float32")
        with pytest.raises(ValueError, match="overlap"):
            IN_PLACE[function](target.api, [x[one], x[other]], CLIPS)
        assert_same_bits(target.read(x), values)


@pytest.mark.needs("writable", "views", "eager")
def test_interleaved_views_are_not_overlapping(target: Target) -> None:
    """Views whose memory interleaves without a common element are ordinary leaves."""
    values = normal((4, 6), "float32")
    x = target.make(values, "float32")
    norm = target.api.clip_by_global_norm_([x[:, ::2], x[:, 1::2]], 0.5)
    assert_norm(number(target, norm), oracles.norm([values]), "float32")
    assert_times(target.read(x), values, coefficient(oracles.norm([values]), 0.5), "float32")


def test_broadcast_leaves_count_every_element(target: Target) -> None:
    """A broadcast array is what it looks like: each of its elements counts, and pure functions scale each."""
    values = np.array([3.0, 4.0])

    def clipped(x: Any) -> Any:
        broadcast = target.xp.broadcast_to(x, (4, 2)) if hasattr(target, "xp") else x
        return target.api.clip_by_global_norm([broadcast], 1.0)

    (got,), norm = target.run(clipped, target.make(values, "float32"))
    assert number(target, norm) == pytest.approx(10 if hasattr(target, "xp") else 5)
    np.testing.assert_allclose(
        target.read(got), np.broadcast_to(values / float(target.read(norm)), got.shape), rtol=1e-6
    )
