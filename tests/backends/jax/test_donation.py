"""``donate=True``: the result takes the memory of the gradients, and arrays that share memory are taken once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradclip.backends import jax as gj

CLIPS = {
    "global norm": lambda g, **kw: gj.clip_by_global_norm(g, 1.0, **kw)[0],
    "norm": lambda g, **kw: gj.clip_by_norm(g, 1.0, **kw),
    "value": lambda g, **kw: gj.clip_by_value(g, 0.5, **kw),
    "rms": lambda g, **kw: gj.clip_by_rms(g, 0.5, **kw),
    "known norm": lambda g, **kw: gj.clip_with_norm(g, 1.0, 10.0, **kw),
    "adaptive": lambda g, **kw: gj.adaptive_grad_clip(g, jax.tree.map(jnp.ones_like, g), 0.1, **kw),
}


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("clip", CLIPS)
def test_donated_gradients_give_their_memory_to_the_result(clip):
    grads = {"a": jnp.ones(1000), "b": jnp.full(500, 2.0)}
    want = CLIPS[clip](grads)
    assert not grads["a"].is_deleted()
    places = {x.unsafe_buffer_pointer() for x in grads.values()}
    got = CLIPS[clip](grads, donate=True)
    assert grads["a"].is_deleted()
    assert {x.unsafe_buffer_pointer() for x in got.values()} == places
    assert_same(got, want)


@pytest.mark.parametrize("clip", CLIPS)
def test_a_tied_leaf_is_donated_once_and_becomes_two(clip):
    def tied():
        x = jnp.full(4, 5.0)
        return {"encoder": x, "decoder": x, "again": [x[:], jnp.asarray(x)], "empty": [e := jnp.zeros((0, 2)), e]}

    got = CLIPS[clip](grads := tied(), donate=True)
    assert grads["encoder"].is_deleted()
    assert_same(got, CLIPS[clip](tied()))
    assert len({x.unsafe_buffer_pointer() for x in jax.tree.leaves(got)}) == 6


@pytest.mark.parametrize("clip", CLIPS)
def test_memory_that_two_arrays_share(clip):
    x = jnp.full(4, 5.0)
    grads = [x, jnp.from_dlpack(x), x.addressable_shards[0].data]
    want = CLIPS[clip]([jnp.full(4, 5.0)] * 3)
    assert_same(CLIPS[clip](grads, donate=True), want)


def test_what_is_a_gradient_and_something_else_too_stays():
    """A parameter, a threshold or a norm is not donated."""
    x, norm = jnp.full(4, 5.0), jnp.asarray(10.0)
    assert_same(gj.adaptive_grad_clip([x], [x], 0.5, donate=True), [jnp.full(4, 2.5)])
    assert_same(gj.clip_with_norm([x, norm], norm / 2, norm, donate=True), [jnp.full(4, 2.5), jnp.asarray(5.0)])
    assert_same(gj.clip_by_value([norm], norm, donate=True), [jnp.asarray(10.0)])
    partial = gj.norm_partial(norm)
    assert_same(gj.clip_with_norm([partial.scale], 1.0, partial, donate=True), [partial.scale / 10])
    assert float(norm) == 10
    assert x.is_deleted()


@pytest.mark.parametrize("clip", CLIPS)
def test_an_error_deletes_nothing(clip):
    x = jnp.ones(3)
    for odd, kind in ((jnp.arange(3), TypeError), (1.0, TypeError), (jax.random.key(0), TypeError)):
        with pytest.raises(kind, match="expected"):
            CLIPS[clip]({"a": x, "b": odd}, donate=True)
    assert not x.is_deleted()


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("way", ["jit", "vmap", "grad", "jvp", "scan", "remat"])
def test_under_a_transformation_donating_has_no_effect(clip, way):
    x = jnp.full((2, 4), 5.0)

    def loss(x, donate=True):
        return sum(jnp.sum(y**2) for y in CLIPS[clip]([x, x, 2 * x], donate=donate))

    ways = {
        "jit": jax.jit,
        "vmap": jax.vmap,
        "grad": jax.grad,
        "jvp": lambda f: lambda x: jax.jvp(f, (x,), (x,)),
        "scan": lambda f: lambda x: jax.lax.scan(lambda c, _: (c, f(x)), 0, length=2)[1],
        "remat": jax.checkpoint,
    }
    got = ways[way](loss)(x)
    assert not x.is_deleted()
    for a, b in zip(*map(jax.tree.leaves, (got, ways[way](lambda x: loss(x, donate=False))(x))), strict=True):
        np.testing.assert_array_equal(a, b)
