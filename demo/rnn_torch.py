"""The demo's recurrent network in PyTorch: same weights and steps as the NumPy network, with autograd's gradient."""

from typing import TypeAlias

import torch
from torch import Tensor

from demo import rnn
from demo.backend import Sizes
from demo.text import Batch
from gradclip.backends.torch import clip_grad_norm_, clip_grad_value_, get_total_norm

Params: TypeAlias = dict[str, Tensor]


class RNN:
    """The network on PyTorch, a `Backend`. Gradients and parameters are written in place."""

    def init(self, seed: int, sizes: Sizes) -> Params:
        """Return the weights that the NumPy network draws."""
        return {name: torch.from_numpy(x).requires_grad_() for name, x in rnn.RNN().init(seed, sizes).items()}

    def hidden(self, sizes: Sizes) -> Tensor:
        """Return zeros of shape (rows, hidden)."""
        return torch.zeros(sizes.rows, sizes.hidden)

    def loss_and_grads(self, params: Params, hidden: Tensor, batch: Batch) -> tuple[float, Params, Tensor]:
        """Return the mean cross-entropy per character in nats, its gradient, and the last hidden state."""
        inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
        state, states = hidden, []
        for step in params["input"][inputs] + params["hidden_bias"]:
            state = torch.relu(step + state @ params["recurrent"])
            states.append(state)
        logits = torch.stack(states) @ params["output"] + params["output_bias"]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten().long())
        grads = torch.autograd.grad(loss, list(params.values()))
        return loss.item(), dict(zip(params, grads, strict=True)), state.detach()

    def global_norm(self, grads: Params, ord: float = 2.0) -> float:
        """Return the norm of all gradients laid end to end."""
        return float(get_total_norm(grads, ord))

    def clip_by_global_norm(self, grads: Params, max_norm: float) -> tuple[Params, float]:
        """Clip in place; return the gradients and the norm that they had."""
        return grads, float(clip_grad_norm_(grads, max_norm))

    def clip_by_value(self, grads: Params, max_value: float) -> Params:
        """Clip in place."""
        clip_grad_value_(grads, max_value)
        return grads

    @torch.no_grad()
    def sgd(self, params: Params, grads: Params, rate: float) -> Params:
        """Take one step, in place."""
        for name, p in params.items():
            p.sub_(grads[name], alpha=rate)
        return params

    def sample(self, params: Params, prompt: list[int], length: int, seed: int) -> list[int]:
        """Draw one character after another, as the NumPy network does."""
        return rnn.RNN().sample({name: p.detach().numpy() for name, p in params.items()}, prompt, length, seed)
