"""Clause 11: a leaf that is passed twice counts once and is scaled once; views that overlap are never scaled twice."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradclip.conformance import oracles
from gradclip.conformance.checks import assert_norm_of, assert_same_bits, assert_times
from gradclip.conformance.helpers import CLIPS, IN_PLACE, NORM_CLIPS, clip, clip_global, make, number, read
from gradclip.conformance.oracles import coefficient, exact
from gradclip.conformance.targets import Target
from gradclip.conformance.values import ORDERS, normal

MULTIPLIES = tuple(f"{name}_" for name in NORM_CLIPS)


@pytest.mark.parametrize("ord", ORDERS)
def test_norm(target: Target, dtype: str, ord: float) -> None:
    """Tied parameters: the same array in two places counts once, in norms and in partials."""
    tied, other = normal(4, dtype, 1), normal(3, dtype, 2)
    a, b = make(target, [(tied, dtype), (other, dtype)])
    norms = target.run(
        lambda g: [target.api.global_norm(g, ord=ord), target.api.norm_partial(g, ord=ord).norm()],
        {"x": a, "y": [b, a], "z": a},
    )
    for norm in read(target, norms):
        assert_norm_of(float(norm), [tied, other], [dtype], ord)


@pytest.mark.parametrize("function", NORM_CLIPS)
def test_pure(target: Target, dtype: str, function: str) -> None:
    """Pure: both places get what the one leaf would have got."""
    values = normal(5, dtype)
    x = target.make(values, dtype)
    both, alone = clip(target, function, [x, x], 0.25), clip(target, function, [x], 0.25)
    assert len(both) == 2
    for got in read(target, both):
        assert_same_bits(got, target.read(alone[0]))


def test_pure_global(target: Target, dtype: str) -> None:
    """Pure: the coefficient is that of the norm in which the leaf counts once."""
    tied, other = normal(4, dtype, 1), normal(3, dtype, 2)
    a, b = make(target, [(tied, dtype), (other, dtype)])
    clipped, norm = clip_global(target, [a, b, a], 0.5)
    assert_norm_of(norm, [tied, other], [dtype])
    right = coefficient(oracles.norm([tied, other]), 0.5)
    for got, x in zip(read(target, clipped), (tied, other, tied), strict=True):
        assert_times(got, x, right, dtype)


def test_equal_leaves_are_two(target: Target, dtype: str) -> None:
    """Leaves with equal values in different memory are two leaves."""
    values = normal(5, dtype)
    norm = target.run(target.api.global_norm, make(target, [(values, dtype), (values, dtype)]))
    assert_norm_of(number(target, norm), [values, values], [dtype])


@pytest.mark.needs("writable")
@pytest.mark.parametrize("function", MULTIPLIES)
def test_in_place(target: Target, dtype: str, function: str) -> None:
    """In place: scaled once."""
    values = normal(5, dtype)
    twice, once = make(target, [(values, dtype), (values, dtype)])
    IN_PLACE[function](target.api, {"x": twice, "y": [twice]}, 0.25)
    IN_PLACE[function](target.api, [once], 0.25)
    assert_same_bits(target.read(twice), target.read(once))


@pytest.mark.needs("numpy")
@pytest.mark.parametrize("function", MULTIPLIES)
def test_alias(target: Target, real_dtype: str, function: str) -> None:
    """Two array objects for the very same elements are one leaf, too."""
    values = normal((3, 4), real_dtype)
    x, once = make(target, [(values, real_dtype), (values, real_dtype)])
    norm = target.api.global_norm([x, x[:], x[...]])
    assert_norm_of(number(target, norm), [values], [real_dtype])
    IN_PLACE[function](target.api, [x, x[:]], 0.25)
    IN_PLACE[function](target.api, [once], 0.25)
    assert_same_bits(target.read(x), target.read(once))


@pytest.mark.needs("views")
@pytest.mark.parametrize("function", MULTIPLIES)
def test_alias_in_place_at_most_once(target: Target, function: str) -> None:
    """Wherever views share memory: an alias is scaled once, or refused before any write; never scaled twice."""
    values = normal(6, "float32")
    x, once = make(target, [(values, "float32"), (values, "float32")])
    IN_PLACE[function](target.api, [once], 0.25)
    try:
        IN_PLACE[function](target.api, [x, x[:]], 0.25)
    except ValueError:
        assert_same_bits(target.read(x), values)
    else:
        assert_same_bits(target.read(x), target.read(once))


OVERLAPS: dict[str, Callable[[Any], list[Any]]] = {
    "shifted": lambda x: [x[:8], x[4:]],
    "part of a whole": lambda x: [x, x[2:5]],
    "every second": lambda x: [x[::2], x[:3]],
    "behind others": lambda x: [x[:2], x[2:4], x[4:9], x[8:]],
}


@pytest.mark.needs("views")
@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("function", IN_PLACE)
def test_overlap(target: Target, function: str, overlap: str) -> None:
    """Leaves that share only some elements are refused in place, before any write."""
    values = normal(12, "float32")
    x = target.make(values, "float32")
    with pytest.raises(ValueError, match="overlap"):
        IN_PLACE[function](target.api, OVERLAPS[overlap](x), CLIPS)
    assert_same_bits(target.read(x), values)


DISJOINT: dict[str, Callable[[Any], list[Any]]] = {
    "halves": lambda x: [x[:3, :], x[3:, :]],
    "interleaved": lambda x: [x[::2, :], x[1::2, :]],
    "columns": lambda x: [x[:, :1], x[:, 1:]],
    "back to front": lambda x: [x[4:, :], x[:2, :], x[2:4, :]],
}


@pytest.mark.needs("views")
@pytest.mark.parametrize("views", DISJOINT)
def test_disjoint_views(target: Target, views: str) -> None:
    """Views of one array that share no element are leaves like others: each element is scaled once."""
    values = normal((6, 4), "float32")
    x = target.make(values, "float32")
    norm = target.api.clip_by_global_norm_(DISJOINT[views](x), 0.5)
    assert_norm_of(number(target, norm), [values], ["float32"])
    assert_times(target.read(x), values, exact(0.5) / oracles.norm([values]), "float32")


def test_broadcast_pure(target: Target, real_dtype: str) -> None:
    """A broadcast array has the norm of what it shows, and is clipped like any other."""
    values = np.array([3.0, 0.0, 4.0])
    x = target.make(values, real_dtype)
    shown = np.broadcast_to(values, (4, 3))

    def broadcast(g: Any) -> Any:
        return target.api.clip_by_global_norm(target.broadcast(g, (4, 3)), 0.5)

    clipped, norm = target.run(broadcast, x)
    assert_norm_of(number(target, norm), [shown], [real_dtype])
    assert_times(target.read(clipped), shown, exact(0.05), real_dtype)


@pytest.mark.needs("views")
@pytest.mark.parametrize("function", IN_PLACE)
def test_broadcast_in_place(target: Target, function: str) -> None:
    """In place it is refused before any write: one element would be scaled again and again."""
    values = np.array([3.0, 0.0, 4.0])
    x = target.make(values, "float32")
    with pytest.raises((ValueError, TypeError), match="expected"):
        IN_PLACE[function](target.api, [target.broadcast(x, (4, 3))], CLIPS)
    assert_same_bits(target.read(x), values)


@pytest.mark.needs("numpy")
@pytest.mark.parametrize("function", IN_PLACE)
def test_sliding_view_in_place(target: Target, function: str) -> None:
    """A writable array that overlaps itself is refused."""
    x = target.make(normal(8, "float32"), "float32")
    before = x.copy()
    windows = np.lib.stride_tricks.sliding_window_view(x, 3, writeable=True)
    with pytest.raises(ValueError, match="overlap"):
        IN_PLACE[function](target.api, [windows], CLIPS)
    assert np.array_equal(x, before)
