"""Parameters as in Haiku: adaptive clipping
=========================================

Parameters in a dict of dicts, as in Haiku: adaptive gradient clipping (AGC) of all layers but the last.
A monitor logs the norm from the state of the chain.
"""

import jax
import jax.numpy as jnp
import optax

from gradclip.backends import optax as gradclip
from gradclip.monitor import NormMonitor, Summary

Params = dict[str, dict[str, jax.Array]]


def init(key: jax.Array) -> Params:
    """Return parameters for two layers."""
    first, second = jax.random.split(key)
    return {
        "mlp/~/linear_0": {"w": jax.random.normal(first, (4, 16)) / 2, "b": jnp.zeros(16)},
        "mlp/~/linear_1": {"w": jax.random.normal(second, (16, 1)) / 4, "b": jnp.zeros(1)},
    }


def apply(params: Params, x: jax.Array) -> jax.Array:
    """Return one number for each row of ``x``."""
    first, second = params["mlp/~/linear_0"], params["mlp/~/linear_1"]
    return (jnp.tanh(x @ first["w"] + first["b"]) @ second["w"] + second["b"])[:, 0]


def main(*writers: str) -> tuple[float, float, Summary]:
    """Train, and write each step to ``writers``; return the first loss, the last loss and the norms."""
    params = init(jax.random.key(0))
    # As in the paper, the last layer is not clipped: optax.masked gets the layers that are.
    clipped = {name: name != "mlp/~/linear_1" for name in params}
    tx = optax.chain(optax.masked(gradclip.adaptive_grad_clip(0.1), clipped), optax.adam(0.02))

    @jax.jit
    def train_step(params: Params, state: optax.OptState, x: jax.Array, y: jax.Array) -> tuple:
        loss, grads = jax.value_and_grad(lambda params: jnp.mean((apply(params, x) - y) ** 2))(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    state, losses, monitor = tx.init(params), [], NormMonitor(writers=writers)
    x = jax.random.normal(jax.random.key(1), (64, 4))
    for _ in range(60):
        params, state, loss = train_step(params, state, x, jnp.sin(x.sum(axis=1)))
        monitor.update(state, loss=loss)
        losses.append(float(loss))
    monitor.fetch()
    return losses[0], losses[-1], monitor.summary()


if __name__ == "__main__":
    first, last, norms = main("norms.jsonl")
    print(f"loss {first:.3f} -> {last:.3f}; median norm {norms.percentiles[50]:.3f}, {norms.clipped:.0%} clipped")
