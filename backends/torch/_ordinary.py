"""The ordinary case in few calls: float32 gradients of a list of parameters on the CPU, and the Euclidean norm.

For a small model the time goes into Python, not into memory. Here only what such gradients need is asked of them, and
of the many small ones once, when they are laid end to end; whatever is unusual is left to the general way. Gradients on
a GPU take a way as short.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from gradclip import _checks
from gradclip.backends.torch._host import multiply_
from gradclip.backends.torch._leaves import apart, kernels_for
from gradclip.backends.torch._squares import LISTED, joins_little, parts_of, sizes_of, sum_of_plain

_PARAMETERS = {Parameter}
LEAST = 2.0**-126
"""The least coefficient that float32 holds without losing digits."""


def clip_ordinary_(parameters: Any, max_norm: Any) -> Tensor | None:
    """Clip gradients in place and return their norm, or return None and leave them if anything is unusual."""
    if type(max_norm) not in (float, int) or not max_norm >= 0:
        return None
    grads = grads_of(parameters)
    if not grads:
        return None
    if not grads[0].is_cpu:
        return _clip_there_(grads, _checks.threshold(max_norm, "max_norm"))
    sizes = sizes_of(grads)
    norm = norm_of(grads, sizes)
    if norm is None:
        return None
    if norm > max_norm and not multiply_plain_(grads, sizes, max_norm / norm):
        return None
    return torch.scalar_tensor(norm, dtype=torch.float32, device="cpu")


def grads_of(parameters: Any) -> list[Tensor] | None:
    """Return the gradients in a list of parameters, or None if it is none."""
    if type(parameters) not in (list, tuple) or set(map(type, parameters)) != _PARAMETERS:
        return None
    return [g for p in parameters if (g := p.grad) is not None]


def norm_of(grads: list[Tensor], sizes: list[int]) -> float | None:
    """Return the norm of gradients of these sizes, or None if they are not distinct and plain (see `sum_of_plain`)."""
    if len(set(map(id, grads))) < len(grads):
        return None
    try:
        parts = parts_of(grads, sizes)
        if not isinstance(parts, list):
            parts = list(parts) if joins_little(sizes) else []
        total = sum_of_plain(parts)
    except RuntimeError:  # of several devices or layouts
        return None
    return None if total is None else math.sqrt(total)


def multiply_plain_(grads: list[Tensor], sizes: list[int], factor: float) -> bool:
    """Multiply gradients that have a `norm_of`; or return False and leave them, if they overlap or it is too small."""
    if factor < LEAST or not apart(grads, [4 * n for n in sizes]):
        return False
    if len(grads) < LISTED:  # NumPy has read them all, so that autograd watches none
        multiply_(grads, factor)
    else:
        with torch.no_grad():
            multiply_(grads, factor)
    return True


def _clip_there_(grads: list[Tensor], max_norm: Any) -> Tensor | None:
    kernels = kernels_for(grads[0].device)
    norm: Tensor | None = kernels.clip_plain_(grads, max_norm) if kernels else None
    return norm
