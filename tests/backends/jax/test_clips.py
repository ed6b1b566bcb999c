"""Every clip on every kind of pytree, against exact arithmetic."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradclip
from gradclip.backends import jax as gj
from tests import exact
from tests.backends.jax.trees import MAKERS, MAX_NORM, VALUES, make, numbers

CLIPS = {
    "value": lambda g: gj.clip_by_value(g, 1.0),
    "norm": lambda g: gj.clip_by_norm(g, 1.0),
    "global norm": lambda g: gj.clip_by_global_norm(g, MAX_NORM)[0],
    "known norm": lambda g: gj.clip_with_norm(g, MAX_NORM, gj.norm_partial(g)),
    "rms": lambda g: gj.clip_by_rms(g, 0.5),
    "adaptive": lambda g: gj.adaptive_grad_clip(g, g, 0.5),
}
EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-23, "complex64": 2.0**-23}


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("jit", [False, True])
def test_what_comes_out_has_the_structure_that_went_in(kind, clip, jit):
    grads = make(kind)
    if jit and kind == "Equinox module":
        pytest.skip("jit itself takes no functions")
    clipped = (jax.jit(CLIPS[clip]) if jit else CLIPS[clip])(grads)
    assert type(clipped) is type(grads)
    assert jax.tree.structure(clipped) == jax.tree.structure(grads)
    for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(clipped), strict=True):
        if isinstance(x, jax.Array):
            assert (x.shape, x.dtype, x.sharding) == (y.shape, y.dtype, y.sharding)
        else:
            assert x is y or (jit and (x.shape, x.dtype) == (y.shape, y.dtype))
    want = CLIPS[clip]({name: jnp.asarray(x, jnp.float32) for name, x in VALUES.items()})
    assert sorted(numbers(clipped)) == sorted(numbers(want))


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_the_global_norm_becomes_max_norm_and_the_direction_stays(dtype, size):
    key = np.random.default_rng(0)
    grads = [jnp.asarray(key.standard_normal(n) * size).astype(dtype) for n in (5, 17)]
    values = list(numbers(grads))
    limit = float(exact.norm(values)) / 3
    clipped, norm = gj.clip_by_global_norm(grads, limit)
    assert exact.relative_error(norm, exact.norm(values)) < 1e-6
    factor = limit / exact.norm(values)
    for x, y in zip(values, numbers(clipped), strict=True):
        assert abs(y - x * complex(factor) if isinstance(x, complex) else y - x * float(factor)) <= max(
            1.01 * abs(x) * float(factor) * (EPS[dtype] + 1e-6), 2.0**-24 if dtype == "float16" else 0
        )


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30, 1e37, 3e38])
def test_any_magnitude_is_clipped(size):
    grads = {"a": jnp.asarray([1.0, -0.5], jnp.float32) * size, "b": jnp.float32(0.25 * size)}
    for limit in (size * 0.3, 1.0 if size > 1 else size * 1e-3):
        clipped, _ = gj.clip_by_global_norm(grads, limit)
        want = exact.clipped(numbers(grads), float(np.float32(limit)))
        for got, exactly in zip(numbers(clipped), want, strict=True):
            assert exact.relative_error(abs(got), abs(exactly)) < 1e-6


@pytest.mark.parametrize("clip", [c for c in CLIPS if c != "value"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_needs_no_clipping_stays_bit_for_bit(clip, dtype):
    grads = [jnp.asarray([1e-3, -0.0, 0.0, 1e-2]).astype(dtype), jnp.zeros(3, dtype)]
    same = {"adaptive": lambda g: gj.adaptive_grad_clip(g, [jnp.ones_like(x) for x in g], 1.0)}.get(clip, CLIPS[clip])
    for x, y in zip(grads, same(grads), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("limit", [None, math.inf, jnp.inf])
def test_no_threshold_changes_nothing(limit):
    grads = [jnp.asarray([3e30, -4.0])]
    assert gj.clip_by_global_norm(grads, limit)[0][0].tolist() == grads[0].tolist()
    assert gj.clip_by_norm(grads, limit)[0].tolist() == grads[0].tolist()
    assert gj.clip_by_rms(grads, limit)[0].tolist() == grads[0].tolist()
    if limit is not None:
        assert gj.adaptive_grad_clip(grads, grads, limit)[0].tolist() == grads[0].tolist()


@pytest.mark.parametrize("clip", CLIPS)
def test_zero_stays_zero_and_a_threshold_of_zero_gives_zeros(clip):
    zeros = [jnp.zeros(3), jnp.zeros(())]
    assert set(numbers(CLIPS[clip](zeros))) == {0.0}
    assert set(numbers(gj.clip_by_global_norm(make("list"), 0.0)[0])) == {0.0}
    assert set(numbers(gj.clip_by_global_norm(zeros, 0.0)[0])) == {0.0}


@pytest.mark.parametrize(
    "number", [1.5, 2, np.float64(1.5), np.int32(2), jnp.float32(1.5), jnp.int32(2), Fraction(3, 2)]
)
def test_a_threshold_may_be_any_real_number(number):
    grads = [jnp.asarray([3.0, 4.0])]
    assert gj.clip_by_global_norm(grads, number)[0][0].tolist() == pytest.approx(
        [0.6 * float(number), 0.8 * float(number)]
    )
    assert jax.jit(gj.clip_by_global_norm)(grads, jnp.asarray(float(number)))[1] == 5


@pytest.mark.parametrize(
    ("bad", "kind"), [(-1.0, ValueError), (math.nan, ValueError), ("one", TypeError), (jnp.ones(2), TypeError)]
)
def test_bad_thresholds_are_refused(bad, kind):
    grads = [jnp.ones(2)]
    for function in (
        lambda: gj.clip_by_global_norm(grads, bad),
        lambda: gj.clip_by_norm(grads, bad),
        lambda: gj.clip_by_value(grads, bad),
        lambda: gj.clip_by_rms(grads, bad),
        lambda: gj.adaptive_grad_clip(grads, grads, bad),
        lambda: gj.clip_per_example(grads, bad),
        lambda: gj.clip_with_norm(grads, 1.0, bad) if not (isinstance(bad, float) and math.isnan(bad)) else _raise(),
    ):
        with pytest.raises(kind, match="expected"):
            function()


def _raise():
    raise ValueError("expected: a norm that is NaN is known, and spreads")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("donate", [False, True])
def test_gradients_that_are_not_finite(bad, donate):
    grads = {"a": jnp.asarray([1.0, bad]), "b": jnp.ones(2)}
    clipped, norm = gj.clip_by_global_norm(grads, 1.0)
    assert not jnp.isfinite(norm)
    assert jnp.isnan(clipped["a"][1])
    assert bool(jnp.isnan(clipped["b"]).all()) == math.isnan(bad)
    with pytest.raises(FloatingPointError, match=r"grads\['a'\] is NaN or inf"):
        gj.clip_by_global_norm(grads, 1.0, nonfinite="error", donate=donate)
    assert grads["b"].tolist() == [1.0, 1.0]
    zeroed, norm = gj.clip_by_global_norm(grads, 1.0, nonfinite="zero", donate=donate)
    assert set(numbers(zeroed)) == {0.0}
    assert not jnp.isfinite(norm)


def test_by_value_keeps_nan_and_bounds_infinities_in_each_dtype():
    grads = [jnp.asarray([jnp.nan, jnp.inf, -jnp.inf, 0.5], dtype) for dtype in (jnp.float16, jnp.float32)]
    for bound in (1e6, jnp.float32(1e6)):
        half, single = gj.clip_by_value(grads, bound)
        assert half[1:].tolist() == [65504.0, -65504.0, 0.5]
        assert single[1:].tolist() == [1e6, -1e6, 0.5]
        assert jnp.isnan(half[0])
    assert gj.clip_by_value(grads[1], 2.0, min_value=1.0)[1:].tolist() == [2.0, 1.0, 1.0]
    with pytest.raises(TypeError, match="complex"):
        gj.clip_by_value([jnp.ones(2, jnp.complex64)], 1.0)


@pytest.mark.parametrize("scale", [1024.0, jnp.float32(1024.0)])
def test_a_loss_scale_is_divided_out(scale):
    grads = [jnp.asarray([3.0, 4.0]) * 1024]
    clipped, norm = gj.clip_by_global_norm(grads, 2.5, scale=scale)
    assert norm == 5
    assert clipped[0].tolist() == [1.5, 2.0]
    assert gj.clip_by_global_norm(grads, 9.0, scale=scale)[0][0].tolist() == [3.0, 4.0]


def test_eps_is_that_of_pytorch():
    clipped, _ = gj.clip_by_global_norm([jnp.asarray([3e-4, 4e-4])], 1e-4, eps=1e-6)
    assert clipped[0].tolist() == pytest.approx([3e-4 * 1e-4 / 5.01e-4, 4e-4 * 1e-4 / 5.01e-4], rel=1e-6)


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1), -1])
@pytest.mark.parametrize("shape", [(3,), (1, 4), (3, 4), (2, 3, 4), (2, 2, 3, 4)])
def test_adaptive_clipping_is_the_core_s(shape, axis):
    if (isinstance(axis, tuple) or axis == 1) and len(shape) < 2:
        pytest.skip("no such axes")
    key = np.random.default_rng(0)
    grads, params = key.standard_normal((2, *shape))
    want = gradclip.adaptive_grad_clip(grads, params, 0.3, axis=axis)
    with jax.enable_x64(True):
        got = gj.adaptive_grad_clip(jnp.asarray(grads), jnp.asarray(params), 0.3, axis=axis)
    np.testing.assert_allclose(got, want, rtol=1e-14)


def test_adaptive_clipping_wants_parameters_that_match():
    grads = {"a": jnp.ones((2, 2)), "b": None}
    assert gj.adaptive_grad_clip(grads, {"a": jnp.ones((2, 2)), "b": "anything"})["b"] is None
    with pytest.raises(ValueError, match="params has a different structure from grads"):
        gj.adaptive_grad_clip(grads, [jnp.ones((2, 2))])
    with pytest.raises(ValueError, match=r"grads\['a'\] has shape \(2, 2\) and its parameter \(2, 3\)"):
        gj.adaptive_grad_clip(grads, {"a": jnp.ones((2, 3)), "b": None})
    with pytest.raises(TypeError, match=r"params\['a'\] is a float"):
        gj.adaptive_grad_clip(grads, {"a": 1.0, "b": None})
    with pytest.raises(ValueError, match="has 6 axes"):
        gj.adaptive_grad_clip([jnp.ones((2,) * 6)], [jnp.ones((2,) * 6)])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_examples_are_clipped_by_themselves(dtype):
    key = np.random.default_rng(0)
    grads = {"a": jnp.asarray(key.standard_normal((6, 3)), dtype), "b": jnp.asarray(key.standard_normal(6), dtype)}
    summed, count = gj.clip_per_example(grads, 1.5)
    each = [jax.tree.map(lambda x, i=i: x[i], grads) for i in range(6)]
    assert count == sum(exact.norm(numbers(one)) > 1.5 for one in each)
    rows = np.array([[float(v) for v in exact.clipped(numbers(one), 1.5)] for one in each])
    np.testing.assert_allclose(list(numbers(summed)), rows.sum(0), rtol=2 * EPS[dtype], atol=2 * EPS[dtype])
    assert [x.dtype for x in jax.tree.leaves(summed)] == [dtype, dtype]
    assert gj.clip_per_example({}, 1.0) == ({}, 0)
    with pytest.raises(ValueError, match="leading axis"):
        gj.clip_per_example({"a": jnp.ones(3), "b": jnp.ones(4)}, 1.0)


def test_parts_that_lie_apart_are_clipped_by_their_whole():
    here, there = jnp.asarray([3e20]), jnp.asarray([4e20])
    whole = gj.norm_partial(here).merge(gj.norm_partial(there))
    assert gj.clip_with_norm(here, 1.0, whole).tolist() == pytest.approx([0.6])
    assert gj.clip_with_norm(here, 1.0, whole.norm()).tolist() == pytest.approx([0.6])
    assert gj.clip_with_norm([jnp.asarray([3.0])], 1.0, 5.0)[0].tolist() == pytest.approx([0.6])
    assert jax.jit(gj.clip_with_norm)(here, 1.0, whole).tolist() == pytest.approx([0.6])


def test_there_are_the_core_s_names_but_for_those_in_place():
    """`Clipper`, too, changes in a call: under ``jit`` a policy's own functions are called."""
    assert set(gj.__all__) == {name for name in gradclip.__all__ if not name.endswith("_")} - {"Clipper"}
