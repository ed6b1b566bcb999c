"""Clause 5: clipped leaves have the norm max_norm to rounding, and the direction that they had."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradclip.conformance import oracles
from gradclip.conformance.checks import assert_clipped, assert_one_coefficient, assert_times
from gradclip.conformance.helpers import clip_global, examples, make, read
from gradclip.conformance.oracles import coefficient, exact, format_of
from gradclip.conformance.targets import Target
from gradclip.conformance.values import is_complex, model, normal, representable, spread

LIMITS = (1e-7, 1e-3, 0.1, 1.0)


@pytest.mark.parametrize("max_norm", LIMITS)
@pytest.mark.parametrize("ord", [1.0, 2.0, 3.0, math.inf])
def test_global_norm(target: Target, dtype: str, max_norm: float, ord: float) -> None:
    """The norm after clipping, one coefficient for all leaves, and the right one; for a threshold of 1e-7 too."""
    leaves = model(dtype, size=3)
    clipped, _ = clip_global(target, make(target, leaves), max_norm, ord=ord)
    before = [values for values, _ in leaves]
    assert_clipped(read(target, clipped), before, [dtype] * len(leaves), max_norm, ord)


@pytest.mark.parametrize("max_norm", [1e-7, 1e-4, 1.0])
def test_no_epsilon(target: Target, real_dtype: str, max_norm: float) -> None:
    """No 1e-6 in the denominator: a norm of 2 · max_norm is halved, however small it is."""
    limit = float(representable(max_norm, real_dtype))
    if limit < format_of(real_dtype).tiny:
        limit = format_of(real_dtype).tiny * 4
    values = np.array([0.0, 2 * limit, 0.0])
    (clipped,), _ = clip_global(target, [target.make(values, real_dtype)], limit)
    assert_times(target.read(clipped), values, exact(0.5), real_dtype)


@pytest.mark.parametrize("max_norm", LIMITS)
def test_mixed_dtypes(target: Target, max_norm: float) -> None:
    """Leaves of all dtypes get one coefficient, each rounded once to its own dtype."""
    leaves = model(target.dtypes, seed=11, size=3)
    clipped, _ = clip_global(target, make(target, leaves), max_norm)
    dtypes, before = [d for _, d in leaves], [v for v, _ in leaves]
    after = read(target, clipped)
    assert_one_coefficient(after, before, dtypes)
    right = coefficient(oracles.norm(before), max_norm)
    for got, x, dtype in zip(after, before, dtypes, strict=True):
        # The norm is as exact as the least exact of them: 1e-6, which a float64 leaf can tell.
        assert_times(got, x, right, "float32" if dtype in {"float64", "complex128"} else dtype)


def test_tiny_coefficient(target: Target, dtype: str) -> None:
    """The coefficient is kept wider than the leaves: where it is below float16's range, clipped leaves need not be."""
    values = np.array([60000.0, 0.0, 60000.0], complex if is_complex(dtype) else float)
    values = representable(values, dtype)
    (clipped,), _ = clip_global(target, [target.make(values, dtype)], 1e-3)
    assert_clipped([target.read(clipped)], [values], [dtype], 1e-3)


def test_many_elements(target: Target, dtype: str) -> None:
    """The same over thousands of elements of many magnitudes."""
    values = spread(3000, dtype) * 4
    (clipped,), _ = clip_global(target, [target.make(values, dtype)], 0.5)
    assert_clipped([target.read(clipped)], [values], [dtype], 0.5)


@pytest.mark.needs("quick")
@examples
@given(data=st.data())
def test_any_leaves(target: Target, data: st.DataObject) -> None:
    """Any shapes, magnitudes and thresholds that make a difference."""
    dtype = data.draw(st.sampled_from(target.dtypes))
    shapes = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=3))
    size = 2.0 ** data.draw(st.integers(-4, 8))
    before = [normal(shape, dtype, seed=i, size=size) for i, shape in enumerate([*shapes, (2,)])]
    max_norm = float(oracles.norm(before)) * data.draw(st.floats(0.01, 0.999))
    clipped, _ = clip_global(target, make(target, [(x, dtype) for x in before]), max_norm)
    assert_clipped(read(target, clipped), before, [dtype] * len(before), max_norm)


@pytest.mark.needs("writable")
@pytest.mark.parametrize("max_norm", LIMITS)
def test_in_place(target: Target, dtype: str, max_norm: float) -> None:
    """In place, the same."""
    leaves = model(dtype, size=3)
    grads = make(target, leaves)
    target.api.clip_by_global_norm_(grads, max_norm)
    assert_clipped(read(target, grads), [v for v, _ in leaves], [dtype] * len(leaves), max_norm)


def _clipped_by_each(target: Target, dtype: str, limit: float) -> tuple[np.ndarray, dict[str, tuple[Any, Any]]]:
    """Return a leaf, and by function what became of it and the coefficient that it should have got."""
    values = normal((4, 3), dtype, size=3)
    x, one = make(target, [(values, dtype), (np.ones_like(values), dtype)])

    def clips(g: Any, w: Any) -> list[Any]:
        api = target.api
        known = api.norm_partial(g)
        return [
            api.clip_by_norm(g, limit),
            api.clip_by_rms(g, limit),
            api.adaptive_grad_clip(g, w, limit, axis=(0, 1)),
            api.clip_with_norm(g, limit, known),
            api.clip_per_example(g[None, ...], limit)[0],
        ]

    size, root = oracles.norm([values]), exact(12) ** exact(0.5)
    limits = [exact(limit), root * exact(limit), root * exact(limit), exact(limit), exact(limit)]
    names = ["clip_by_norm", "clip_by_rms", "adaptive_grad_clip", "clip_with_norm", "clip_per_example"]
    out = read(target, target.run(clips, x, one))
    return values, {n: (got, lim / size) for n, got, lim in zip(names, out, limits, strict=True)}


@pytest.mark.parametrize("limit", [1e-7, 0.1])
def test_other_functions(target: Target, dtype: str, limit: float) -> None:
    """Every function that multiplies does so by the right coefficient, rounded last."""
    values, clipped = _clipped_by_each(target, dtype, limit)
    for got, right in clipped.values():
        assert_times(got, values, right, dtype)
        assert_one_coefficient([got], [values], [dtype])
