"""Clipping of spikes on pytrees, with the second moments of optax's Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradclip
from gradclip.backends.jax import clip_spikes


def test_compiled_or_not_it_does_what_the_core_does():
    rng = np.random.default_rng(0)
    params = {"a": jnp.zeros((20, 30)), "b": [jnp.zeros(3)]}
    adam = optax.scale_by_adam()
    _, state = adam.update(jax.tree.map(lambda p: p + 0.1, params), adam.init(params))
    grads = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), jnp.float32), params)
    expected = gradclip.clip_spikes(*(jax.tree.map(np.asarray, tree) for tree in (grads, state.nu)), 100.0)
    for function in (clip_spikes, jax.jit(clip_spikes)):
        clipped = function(grads, state.nu, 100.0)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), clipped, expected)
    assert (clipped["a"] != grads["a"]).any()


def test_arguments():
    with pytest.raises(
        ValueError, match=r"second_moments has the structure .*, expected the same; pass both in containers"
    ):
        clip_spikes({"a": jnp.ones(2)}, [jnp.ones(2)])
    with pytest.raises(ValueError, match=r"grads has shape \(2,\) and its second moment \(3,\)"):
        clip_spikes(jnp.ones(2), jnp.ones(3))
    with pytest.raises(ValueError, match="threshold=-1"):
        clip_spikes(jnp.ones(2), jnp.ones(2), -1)
