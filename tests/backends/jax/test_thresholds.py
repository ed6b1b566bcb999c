"""Thresholds that cannot be checked, because they are traced or on a device: a negative one counts as 0."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradclip.backends import jax as gj
from gradclip.backends import optax as ours

GRADS = {"w": jnp.asarray([3.0, -4.0]), "b": jnp.asarray([0.5, 0.0])}
CLIPS = {
    "value": gj.clip_by_value,
    "value, both bounds": lambda g, m: gj.clip_by_value(g, m, min_value=-m),
    "norm": gj.clip_by_norm,
    "norm, order 3": lambda g, m: gj.clip_by_norm(g, m, ord=3),
    "global norm": lambda g, m: gj.clip_by_global_norm(g, m)[0],
    "global norm, all options": lambda g, m: gj.clip_by_global_norm(g, m, nonfinite="zero", scale=2.0, eps=1e-6)[0],
    "known norm": lambda g, m: gj.clip_with_norm(g, m, gj.global_norm(g)),
    "known partial": lambda g, m: gj.clip_with_norm(g, m, gj.norm_partial(g)),
    "rms": gj.clip_by_rms,
    "adaptive": lambda g, m: gj.adaptive_grad_clip(g, jax.tree.map(jnp.ones_like, g), m),
    "per example": lambda g, m: gj.clip_per_example(jax.tree.map(lambda x: x[None], g), m)[0],
    "optax, per example": lambda g, m: ours.per_example_global_norm_clip(jax.tree.map(lambda x: x[None], g), m)[0],
    "optax, by layer": lambda g, m: ours.per_example_layer_norm_clip(jax.tree.map(lambda x: x[None], g), m)[0],
}
TRANSFORMATIONS = {
    "clip": (ours.clip, "max_delta"),
    "clip_by_global_norm": (ours.clip_by_global_norm, "max_norm"),
    "clip_by_block_rms": (ours.clip_by_block_rms, "threshold"),
    "adaptive_grad_clip": (ours.adaptive_grad_clip, "clipping"),
}
for name, (make, _) in TRANSFORMATIONS.items():
    CLIPS["optax " + name] = lambda g, m, make=make: make(m).update(g, None, jax.tree.map(jnp.ones_like, g))[0]
WAYS = {
    "on the device": lambda f: lambda g, m: f(g, jnp.asarray(m)),
    "integer": lambda f: lambda g, m: f(g, jnp.asarray(m) if np.isnan(m) else jnp.asarray(int(m))),
    "jit": jax.jit,
    "vmap": lambda f: lambda g, m: jax.tree.map(lambda x: x[1], jax.vmap(f, (None, 0))(g, jnp.asarray([1.0, m]))),
    "scan": lambda f: lambda g, m: jax.lax.scan(lambda c, _: (c, f(g, c)), jnp.asarray(m), None, 1)[1],
}


def values(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("clip", CLIPS)
def test_a_negative_threshold_is_taken_as_zero_and_nan_spreads(clip, way):
    function = WAYS[way](CLIPS[clip])
    assert not values(function(GRADS, -2.0)).any()
    assert np.isnan(values(function(GRADS, np.nan))).all()
    np.testing.assert_allclose(values(function(GRADS, 1.0)), values(CLIPS[clip](GRADS, 1.0)), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("clip", CLIPS)
def test_in_every_dtype(clip, dtype):
    with jax.enable_x64(dtype == "float64"):
        grads = jax.tree.map(lambda x: x.astype(dtype), GRADS)
        clipped = jax.jit(CLIPS[clip])(grads, -2.0)
        assert not values(clipped).any()
        assert {x.dtype.name for x in jax.tree.leaves(clipped)} == {dtype}


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (2.0, -1.0, [0.0, 0.0]),  # they cross: both are moved to zero
        (2.0, 1.0, [1.0, 0.0]),  # the low one only, as the high one is not negative
        (-1.0, -2.0, [0.0, -1.0]),
        (-1.0, 2.0, [2.0, -1.0]),
        (-2.0, -1.0, [-1.0, -2.0]),  # all below zero, and asked for
        (1.0, 2.0, [2.0, 1.0]),
        (-np.inf, 1.0, [1.0, -4.0]),
        (np.inf, -np.inf, [0.0, 0.0]),
        (np.nan, 1.0, [np.nan, np.nan]),
        (-1.0, np.nan, [np.nan, np.nan]),
    ],
)
def test_bounds_that_cross(low, high, want):
    x = GRADS["w"]
    both = jax.jit(lambda low, high: gj.clip_by_value(x, high, min_value=low))(low, high)
    np.testing.assert_array_equal(both, want)
    if not np.isnan(low + high):  # NaN that is known is refused
        np.testing.assert_array_equal(jax.jit(lambda high: gj.clip_by_value(x, high, min_value=low))(high), want)
        np.testing.assert_array_equal(jax.jit(lambda low: gj.clip_by_value(x, high, min_value=low))(low), want)


def test_a_negative_eps_is_taken_as_zero_and_nan_spreads():
    for eps, want in ((-10.0, [1.5, -2.0]), (-4.75, [1.5, -2.0]), (np.nan, [np.nan] * 2)):
        clipped = jax.jit(lambda e: gj.clip_by_global_norm(GRADS["w"], 2.5, eps=e)[0])(eps)
        np.testing.assert_allclose(clipped, want, rtol=1e-6)
        params = jnp.asarray([0.0, 5.0])
        clipped = jax.jit(lambda e, p=params: gj.adaptive_grad_clip(GRADS["w"], p, 0.5, eps=e))(eps)
        np.testing.assert_allclose(clipped, want, rtol=1e-6)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_injected_and_scheduled(name):
    make, argument = TRANSFORMATIONS[name]
    for limit in (-1.0, jnp.asarray(-1.0)):
        tx = optax.inject_hyperparams(make)(**{argument: limit})
        assert not values(tx.update(GRADS, tx.init(GRADS), GRADS)[0]).any()
    tx = optax.inject_hyperparams(make)(**{argument: optax.linear_schedule(1.0, -1.0, 1)})
    state = tx.update(GRADS, tx.init(GRADS), GRADS)[1]
    assert not values(tx.update(GRADS, state, GRADS)[0]).any()
    if name == "clip":
        return
    tx = make(optax.linear_schedule(1.0, -1.0, 1))
    params = jax.tree.map(lambda x: x / 10, GRADS)
    _, state = tx.update(GRADS, tx.init(params), params)
    updates, state = tx.update(GRADS, state, params)
    assert not values(updates).any()
    assert (float(state.coefficient), int(state.clipped)) == (0.0, 2)


def test_the_derivative_by_a_negative_threshold_is_zero():
    for clip in ("global norm", "norm", "rms", "known norm", "adaptive"):
        slope = jax.grad(lambda m, clip=clip: jnp.sum(values_of(CLIPS[clip](GRADS, m))))(-1.0)
        assert slope == 0


def values_of(tree):
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])
