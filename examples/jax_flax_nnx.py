"""Flax NNX: a state that holds the norm
=====================================

Flax NNX: the optimizer clips gradients by their global norm; a monitor logs the norm from its state.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gradclip.backends import optax as gradclip
from gradclip.monitor import NormMonitor, Summary


class Model(nnx.Module):
    """A perceptron with two layers."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(4, 16, rngs=rngs)
        self.second = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return one number for each row of ``x``."""
        return self.second(jnp.tanh(self.first(x)))[:, 0]


@nnx.jit
def train_step(model: Model, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
    """Take one step and return the loss."""
    loss, grads = nnx.value_and_grad(lambda model: jnp.mean((model(x) - y) ** 2))(model)
    optimizer.update(model, grads)
    return loss


def main(*writers: str) -> tuple[float, float, Summary]:
    """Train, and write each step to ``writers``; return the first loss, the last loss and the norms."""
    model = Model(nnx.Rngs(0))
    transformation = optax.chain(gradclip.clip_by_global_norm(0.5), optax.adam(0.02))
    optimizer = nnx.Optimizer(model, transformation, wrt=nnx.Param)
    monitor = NormMonitor(writers=writers)
    x = jax.random.normal(jax.random.key(1), (64, 4))
    losses = []
    for _ in range(60):
        loss = train_step(model, optimizer, x, jnp.sin(x.sum(axis=1)))
        monitor.update(nnx.as_pure(optimizer.opt_state), loss=loss)
        losses.append(float(loss))
    monitor.fetch()
    return losses[0], losses[-1], monitor.summary()


if __name__ == "__main__":
    first, last, norms = main("norms.jsonl")
    print(f"loss {first:.3f} -> {last:.3f}; median norm {norms.percentiles[50]:.3f}, {norms.clipped:.0%} clipped")
