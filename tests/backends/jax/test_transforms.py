"""Clips inside of JAX's transformations, and under its strict settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradclip.backends import jax as gj
from tests.backends.jax.trees import numbers

GRADS = {"w": jnp.asarray([[3.0, -1.5], [0.25, 8.0]]), "b": jnp.asarray([-4.0, 0.0, 0.5])}
CLIPS = {
    "value": lambda g, m: gj.clip_by_value(g, m),
    "norm": lambda g, m: gj.clip_by_norm(g, m),
    "norm, order 3": lambda g, m: gj.clip_by_norm(g, m, ord=3),
    "global norm": lambda g, m: gj.clip_by_global_norm(g, m)[0],
    "global norm, all options": lambda g, m: gj.clip_by_global_norm(
        g, m, ord=3, nonfinite="zero", scale=m * 0 + 1, eps=m * 1e-9
    )[0],
    "known norm": lambda g, m: gj.clip_with_norm(g, m, gj.global_norm(g)),
    "known partial": lambda g, m: gj.clip_with_norm(g, m, gj.norm_partial(g)),
    "rms": lambda g, m: gj.clip_by_rms(g, m),
    "adaptive": lambda g, m: gj.adaptive_grad_clip(g, jax.tree.map(jnp.ones_like, g), m, eps=m * 1e-3),
    "per example": lambda g, m: gj.clip_per_example(jax.tree.map(lambda x: x[None], g), m)[0],
}
WAYS = {
    "eager": lambda f: f,
    "jit": jax.jit,
    "nested jit": lambda f: jax.jit(lambda *a: jax.jit(f)(*a)),
    "remat": jax.checkpoint,
    "scan": lambda f: lambda g, m: jax.lax.scan(lambda c, _: (f(c, m), None), g, None, length=1)[0],
    "while": lambda f: lambda g, m: jax.lax.fori_loop(0, 1, lambda _, c: f(c, m), g),
    "vmap": lambda f: (
        lambda g, m: jax.tree.map(
            lambda x: x[1], jax.vmap(f, in_axes=(0, None))(jax.tree.map(lambda x: jnp.stack([x * 2, x]), g), m)
        )
    ),
    "vmap over thresholds": lambda f: (
        lambda g, m: jax.tree.map(lambda x: x[1], jax.vmap(f, in_axes=(None, 0))(g, jnp.stack([m * 2, m])))
    ),
    "no jit": lambda f: jax.disable_jit()(f),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("clip", CLIPS)
def test_every_transformation_gives_what_an_eager_call_does(clip, way):
    if way == "no jit" and clip == "per example":
        pytest.skip("eager operations on the same values round differently")
    limit = jnp.asarray(0.5)
    got, want = WAYS[way](CLIPS[clip])(GRADS, limit), CLIPS[clip](GRADS, limit)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=3e-7)


@pytest.mark.parametrize("clip", CLIPS)
def test_shapes_are_known_without_computing(clip):
    shapes = jax.eval_shape(CLIPS[clip], GRADS, jnp.asarray(0.5))
    same = jax.tree.map(lambda x: (x.shape, x.dtype), GRADS)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == same


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize(
    ("dtype", "limit", "x64"),
    [("float16", jnp.float32(0.5), False), ("bfloat16", jnp.float16(0.5), True), ("float32", 0.5, True)],
)
def test_strict_promotion_and_nan_checks(clip, dtype, limit, x64):
    with jax.enable_x64(x64), jax.numpy_dtype_promotion("strict"), jax.debug_nans(True):
        for grads in (GRADS, jax.tree.map(jnp.zeros_like, GRADS)):
            narrow = jax.tree.map(lambda x: x.astype(dtype), grads)
            if isinstance(limit, float):
                clipped = jax.jit(lambda g, f=CLIPS[clip]: f(g, limit))(narrow)
            else:
                clipped = CLIPS[clip](narrow, limit)
            assert {x.dtype.name for x in jax.tree.leaves(clipped)} == {dtype}


@pytest.mark.parametrize("clip", CLIPS)
def test_mixed_dtypes_under_strict_promotion(clip):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        grads = {"h": jnp.ones(3, jnp.float16), "s": jnp.ones(3, jnp.float32), "d": jnp.ones(3, jnp.float64)}
        clipped = CLIPS[clip](grads, jnp.float32(0.5))
        assert [x.dtype for x in jax.tree.leaves(clipped)] == [x.dtype for x in jax.tree.leaves(grads)]


def test_under_vmap_each_example_has_a_range_of_its_own():
    sizes = jnp.asarray([1e-30, 1e-3, 1.0, 1e20, 0.0, 1e37])
    clipped, norms = jax.vmap(lambda s: gj.clip_by_global_norm([s * jnp.asarray([3.0, 4.0])], 1.0))(sizes)
    np.testing.assert_allclose(norms, 5 * sizes, rtol=1e-6)
    want = jnp.where(5 * sizes <= 1, sizes, 0.2)[:, None] * jnp.asarray([3.0, 4.0])
    np.testing.assert_allclose(clipped[0], want, rtol=1e-6)


def test_a_partial_is_a_pytree():
    parts = jnp.asarray([[3e20, 0.0], [0.0, 4e20]])

    def add(partial, part):
        return partial.merge(gj.norm_partial(part)), None

    whole, _ = jax.lax.scan(add, gj.norm_partial(jnp.zeros(2)), parts)
    assert float(whole.norm()) == pytest.approx(5e20)
    batch = jax.jit(jax.vmap(gj.norm_partial))(parts)
    assert batch.norm().tolist() == pytest.approx([3e20, 4e20])


def test_raising_is_refused_where_no_value_is_known():
    def step(grads):
        return gj.clip_by_global_norm(grads, 1.0, nonfinite="error")

    assert step(GRADS)[1] > 1
    for way in (jax.jit, jax.vmap):
        with pytest.raises(ValueError, match=r'nonfinite="error" was asked for under tracing.*pass nonfinite="zero"'):
            way(step)(GRADS["b"])


def test_deterministic():
    one, other = (list(numbers(gj.clip_by_global_norm(GRADS, 0.5))) for _ in range(2))
    assert one == other
    assert one == list(numbers(jax.jit(gj.clip_by_global_norm)(GRADS, 0.5)))
