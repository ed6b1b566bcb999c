"""An LSTM for the adding problem
==============================

An LSTM that adds two marked numbers of a sequence, clipped by `clip_grad_norm_`: python examples/torch_lstm.py.

The adding problem [1]_: the input is a sequence of pairs (number, mark), the output is the sum of the two marked
numbers. The gradient goes back through every step of the sequence. It runs offline, in less than a minute on a CPU.

References
----------
.. [1] S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997, experiment 4.
"""

import torch
from torch import Tensor, nn

from gradclip.backends.torch import clip_grad_norm_


def sequences(n: int, length: int) -> tuple[Tensor, Tensor]:
    """Return inputs of shape (n, length, 2) and sums of shape (n, 1)."""
    numbers, marks = torch.rand(n, length), torch.zeros(n, length)
    half = length // 2
    places = torch.stack([torch.randint(half, (n,)), half + torch.randint(length - half, (n,))], dim=1)
    marks.scatter_(1, places, 1.0)
    return torch.stack([numbers, marks], dim=2), numbers.gather(1, places).sum(1, keepdim=True)


def train(steps: int = 300, length: int = 20, max_norm: float = 0.5, seed: int = 0) -> tuple[list[float], list[float]]:
    """Return the mean squared errors and the norms before clipping; to predict the mean always has an error of 1/6."""
    torch.manual_seed(seed)
    lstm, head = nn.LSTM(2, 32, batch_first=True), nn.Linear(32, 1)
    parameters = [*lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    errors, norms = [], []
    for _ in range(steps):
        inputs, sums = sequences(64, length)
        loss = nn.functional.mse_loss(head(lstm(inputs)[0][:, -1]), sums)
        optimizer.zero_grad()
        loss.backward()
        norms.append(clip_grad_norm_(parameters, max_norm).item())
        optimizer.step()
        errors.append(loss.item())
    return errors, norms


if __name__ == "__main__":
    errors, norms = train()
    for step in range(0, len(errors), len(errors) // 10):
        print(f"step {step:4d}  error {errors[step]:.4f}  norm {norms[step]:.2f}")
