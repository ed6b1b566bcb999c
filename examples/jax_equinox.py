"""Equinox: a training step without an optimizer
=============================================

Equinox: a training step that calls `clip_by_global_norm` of the JAX adapter itself, and logs the norm.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from gradclip.backends import jax as gradclip
from gradclip.monitor import NormMonitor, Summary

MAX_NORM = 0.5


@eqx.filter_jit
def train_step(model: eqx.nn.MLP, x: jax.Array, y: jax.Array) -> tuple[eqx.nn.MLP, jax.Array, jax.Array]:
    """Return the model after one step, the loss and the norm of its gradients."""
    loss, grads = eqx.filter_value_and_grad(lambda model: jnp.mean((jax.vmap(model)(x) - y) ** 2))(model)
    grads, norm = gradclip.clip_by_global_norm(grads, MAX_NORM)
    model = eqx.apply_updates(model, jax.tree.map(lambda g: -0.3 * g, grads))
    return model, loss, norm


def main(*writers: str) -> tuple[float, float, Summary]:
    """Train, and write each step to ``writers``; return the first loss, the last loss and the norms."""
    model = eqx.nn.MLP(4, "scalar", 16, 1, activation=jnp.tanh, key=jax.random.key(0))
    monitor = NormMonitor(writers=writers)
    x = jax.random.normal(jax.random.key(1), (64, 4))
    losses = []
    for _ in range(60):
        model, loss, norm = train_step(model, x, jnp.sin(x.sum(axis=1)))
        monitor.record(norm, clipped=norm > MAX_NORM, loss=loss)
        losses.append(float(loss))
    monitor.fetch()
    return losses[0], losses[-1], monitor.summary()


if __name__ == "__main__":
    first, last, norms = main("norms.jsonl")
    print(f"loss {first:.3f} -> {last:.3f}; median norm {norms.percentiles[50]:.3f}, {norms.clipped:.0%} clipped")
