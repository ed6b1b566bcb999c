r"""A plain recurrent network in NumPy, with explicit backpropagation through time.

.. math:: h_t = \max(0,\; W_x[x_t] + h_{t-1} W_h + b_h), \qquad p_t = \mathrm{softmax}(h_t W_y + b_y)

The gradient goes back through :math:`W_h` once for every character. Rectified units do not bound the state. So the
state and the gradient grow geometrically as soon as the largest eigenvalues of :math:`W_h` exceed 1. This is the
explosion that the demo shows; it is not injected.

References
----------
.. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
   arXiv:1211.5063.
"""

from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

import gradclip
from demo.backend import TEMPERATURE, Sizes
from demo.text import Batch, Codes

Floats: TypeAlias = NDArray[np.floating]
Params: TypeAlias = dict[str, Floats]

_INPUT, _RECURRENT, _OUTPUT = 0.1, 0.8, 0.3
"""The scale of the first weights. The recurrent one is below 1, so training starts without an explosion."""


class RNN:
    """The network on NumPy, a `Backend`. Gradients and parameters are written in place.

    Parameters
    ----------
    dtype : type
        The dtype of all weights, states and gradients.
    """

    def __init__(self, dtype: type[np.floating] = np.float32) -> None:
        self.dtype: np.dtype[np.floating] = np.dtype(dtype)

    def init(self, seed: int, sizes: Sizes) -> Params:
        """Draw the weights; biases start at zero."""
        draw = np.random.default_rng(seed).standard_normal
        vocabulary, hidden = sizes.vocabulary, sizes.hidden
        params = {
            "input": _INPUT * draw((vocabulary, hidden)),
            "recurrent": _RECURRENT / hidden**0.5 * draw((hidden, hidden)),
            "hidden_bias": np.zeros(hidden),
            "output": _OUTPUT / hidden**0.5 * draw((hidden, vocabulary)),
            "output_bias": np.zeros(vocabulary),
        }
        return {name: array.astype(self.dtype) for name, array in params.items()}

    def hidden(self, sizes: Sizes) -> Floats:
        """Return zeros of shape (rows, hidden)."""
        return np.zeros((sizes.rows, sizes.hidden), self.dtype)

    def loss_and_grads(self, params: Params, hidden: Floats, batch: Batch) -> tuple[float, Params, Floats]:
        """Return the mean cross-entropy per character in nats, its gradient, and the last hidden state."""
        states = _states(params, hidden, batch.inputs)
        loss, dlogits = _cross_entropy(params, states[1:], batch.targets)
        return loss, _backward(params, states, dlogits, batch.inputs), states[-1]

    def global_norm(self, grads: Params, ord: float = 2.0) -> float:
        """Return the norm of all gradients laid end to end."""
        return float(gradclip.global_norm(grads, ord=ord))

    def clip_by_global_norm(self, grads: Params, max_norm: float) -> tuple[Params, float]:
        """Clip in place; return the gradients and the norm that they had."""
        norm = gradclip.clip_by_global_norm_(grads, max_norm)
        return grads, float(norm)

    def clip_by_value(self, grads: Params, max_value: float) -> Params:
        """Clip in place."""
        gradclip.clip_by_value_(grads, max_value)
        return grads

    def sgd(self, params: Params, grads: Params, rate: float) -> Params:
        """Take one step, in place."""
        for name, array in params.items():
            array -= array.dtype.type(rate) * grads[name]
        return params

    def sample(self, params: Params, prompt: list[int], length: int, seed: int) -> list[int]:
        """Draw one character after another, each from the network's distribution given the characters before it."""
        rng = np.random.default_rng(seed)
        state = np.zeros((1, params["recurrent"].shape[0]), self.dtype)
        text = list(prompt)
        state = _states(params, state, np.array(prompt)[:, None])[-1]
        for _ in range(length):
            logits = (state @ params["output"] + params["output_bias"])[0].astype(np.float64) / TEMPERATURE
            if not np.isfinite(logits).all():
                break
            chances = np.exp(logits - logits.max())
            text.append(int(rng.choice(len(chances), p=chances / chances.sum())))
            state = _states(params, state, np.array([text[-1:]]))[-1]
        return text


def _states(params: Params, hidden: Floats, inputs: Codes) -> Floats:
    """Return the hidden states before and after each character: shape (length + 1, rows, hidden)."""
    xp: Any = array_namespace(hidden)
    states: Floats = xp.empty((len(inputs) + 1, *hidden.shape), dtype=hidden.dtype)
    states[0] = hidden
    drive = params["input"][inputs] + params["hidden_bias"]
    for step in range(len(inputs)):
        xp.maximum(drive[step] + states[step] @ params["recurrent"], 0, out=states[step + 1])
    return states


def _cross_entropy(params: Params, states: Floats, targets: Codes) -> tuple[float, Floats]:
    """Return the mean loss and its gradient with respect to the logits: shape (length · rows, vocabulary)."""
    xp: Any = array_namespace(states)
    logits = states.reshape(targets.size, -1) @ params["output"] + params["output_bias"]
    logits -= logits.max(axis=1, keepdims=True)  # softmax is unchanged, and exp cannot overflow
    right = (xp.arange(targets.size), targets.ravel())
    chances = xp.exp(logits)
    total = chances.sum(axis=1, keepdims=True)
    loss = float(xp.mean(xp.log(total[:, 0]) - logits[right], dtype=np.float64))
    chances /= total
    chances[right] -= 1
    chances /= targets.size
    return loss, chances


def _backward(params: Params, states: Floats, dlogits: Floats, inputs: Codes) -> Params:
    """Return the gradient of every parameter, from the last character back to the first."""
    xp: Any = array_namespace(states)
    length, (rows, hidden) = len(inputs), states.shape[1:]
    dstates = (dlogits @ params["output"].T).reshape(length, rows, hidden)
    recurrent = xp.ascontiguousarray(params["recurrent"].T)
    carried = xp.zeros_like(states[0])
    for step in reversed(range(length)):
        dstates[step] += carried
        dstates[step] *= states[step + 1] > 0  # the gradient passes where the state was positive
        carried = dstates[step] @ recurrent
    flat = dstates.reshape(length * rows, hidden)
    # One-hot rows times the gradient: each character's row of `input` is the sum over its occurrences.
    onehot = xp.zeros_like(dlogits)
    onehot[xp.arange(inputs.size), inputs.ravel()] = 1
    return {
        "input": onehot.T @ flat,
        "recurrent": states[:-1].reshape(length * rows, hidden).T @ flat,
        "hidden_bias": flat.sum(axis=0),
        "output": states[1:].reshape(length * rows, hidden).T @ dlogits,
        "output_bias": dlogits.sum(axis=0),
    }
