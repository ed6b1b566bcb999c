"""The demo's recurrent network in JAX: same weights and steps as the NumPy network, with JAX's gradient."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from demo import rnn
from demo.backend import Sizes
from demo.text import Batch
from gradclip.backends.jax import clip_by_global_norm, clip_by_value, global_norm

Params: TypeAlias = dict[str, Array]


class RNN:
    """The network on JAX, a `Backend`. Every step returns new gradients and parameters."""

    def init(self, seed: int, sizes: Sizes) -> Params:
        """Return the weights that the NumPy network draws."""
        return {name: jnp.asarray(x) for name, x in rnn.RNN().init(seed, sizes).items()}

    def hidden(self, sizes: Sizes) -> Array:
        """Return zeros of shape (rows, hidden)."""
        return jnp.zeros((sizes.rows, sizes.hidden))

    def loss_and_grads(self, params: Params, hidden: Array, batch: Batch) -> tuple[float, Params, Array]:
        """Return the mean cross-entropy per character in nats, its gradient, and the last hidden state."""
        (loss, last), grads = _loss_and_grads(params, hidden, batch.inputs, batch.targets)
        return float(loss), grads, last

    def global_norm(self, grads: Params, ord: float = 2.0) -> float:
        """Return the norm of all gradients laid end to end."""
        return float(global_norm(grads, ord=ord))

    def clip_by_global_norm(self, grads: Params, max_norm: float) -> tuple[Params, float]:
        """Return gradients whose norm is at most ``max_norm``, in the memory of ``grads``, and the norm before."""
        clipped, norm = clip_by_global_norm(grads, max_norm, donate=True)
        return clipped, float(norm)

    def clip_by_value(self, grads: Params, max_value: float) -> Params:
        """Return gradients whose elements are in [-max_value, max_value], in the memory of ``grads``."""
        return clip_by_value(grads, max_value, donate=True)

    def sgd(self, params: Params, grads: Params, rate: float) -> Params:
        """Return the parameters after one step."""
        stepped: Params = _sgd(params, grads, rate)
        return stepped

    def sample(self, params: Params, prompt: list[int], length: int, seed: int) -> list[int]:
        """Draw one character after another, as the NumPy network does."""
        return rnn.RNN().sample({name: np.asarray(p) for name, p in params.items()}, prompt, length, seed)


def _loss(params: Params, hidden: Array, inputs: Array, targets: Array) -> tuple[Array, Array]:
    drive = params["input"][inputs] + params["hidden_bias"]

    def step(state: Array, driven: Array) -> tuple[Array, Array]:
        state = jax.nn.relu(driven + state @ params["recurrent"])
        return state, state

    last, states = jax.lax.scan(step, hidden, drive)
    chances = jax.nn.log_softmax(states @ params["output"] + params["output_bias"])
    return -jnp.mean(jnp.take_along_axis(chances, targets[..., None], axis=-1)), last


_loss_and_grads = jax.jit(jax.value_and_grad(_loss, has_aux=True))


@jax.jit
def _sgd(params: Params, grads: Params, rate: float) -> Params:
    return {name: p - rate * grads[name] for name, p in params.items()}
