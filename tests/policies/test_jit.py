"""A policy in a compiled training step of JAX, as docs/policies.md shows it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradclip
from gradclip.backends.jax import clip_by_global_norm, global_norm, leaf_norms
from gradclip.policies import AdaGC, ZClip
from tests.policies.recorded import recorded


def test_a_policy_of_one_norm_clips_as_a_clipper_does():
    policy = ZClip(warmup_steps=5, max_norm=None)
    clipper, state = gradclip.Clipper(policy), policy.init(jnp.float32(0))

    @jax.jit
    def step(state, grads):
        max_norm, state = policy.update(state, global_norm(grads))
        return clip_by_global_norm(grads, max_norm)[0], max_norm, state

    for row in recorded()[:45]:
        grads = [np.full(3, norm, np.float32) for norm in row]
        clipped, max_norm, state = step(state, [jnp.asarray(g) for g in grads])
        expected, _ = clipper(grads)
        assert float(max_norm) == pytest.approx(clipper.max_norm, rel=1e-6)
        np.testing.assert_allclose(clipped, expected, rtol=2e-6)


def test_norms_of_leaves_as_one_array():
    policy = AdaGC(warmup_steps=5)
    clipper, state = gradclip.Clipper(policy), policy.init(jnp.zeros(3))
    step = jax.jit(lambda state, grads: policy.update(state, jnp.stack(leaf_norms(grads))))
    for row in recorded()[:30]:
        grads = [np.full(3, norm, np.float32) for norm in row]
        max_norm, state = step(state, [jnp.asarray(g) for g in grads])
        clipper(grads)
        np.testing.assert_allclose(max_norm, clipper.max_norm, rtol=1e-6)
