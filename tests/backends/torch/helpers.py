"""Parameters with given gradients, and their values for the exact oracles."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter


def param(grad: Tensor) -> Parameter:
    """Return a parameter that has this very tensor as its gradient."""
    p = Parameter(torch.zeros(grad.shape, dtype=grad.dtype, device=grad.device))
    p.grad = grad
    return p


def values(*tensors: Tensor) -> list[complex]:
    """Return all elements as Python numbers, in order."""
    return [v for x in tensors for v in x.detach().to_dense().reshape(-1).tolist()]


def grads(params: Iterable[Parameter]) -> list[Tensor]:
    """Return the gradients that there are."""
    return [p.grad for p in params if p.grad is not None]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
