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
from gradclip.backends.torch._squares import LISTED, joins_little, parts_of, sum_of_plain

_PARAMETERS = {Parameter}
_numel = Tensor.numel
_LEAST = 2.0**-126
"""The least coefficient that float32 holds without losing digits."""


def clip_ordinary_(parameters: object, max_norm: object) -> Tensor | None:
    """Clip gradients in place and return their norm, or return None and leave them if anything is unusual."""
    if type(max_norm) not in (float, int) or not max_norm >= 0:  # type: ignore[operator]
        return None
    if type(parameters) not in (list, tuple) or set(map(type, parameters)) != _PARAMETERS:  # type: ignore[call-overload]
        return None
    grads = [g for p in parameters if (g := p.grad) is not None]  # type: ignore[attr-defined]  # they are parameters
    if grads and not grads[0].is_cpu:
        return _clip_there_(grads, _checks.threshold(max_norm, "max_norm"))
    if len(set(map(id, grads))) < len(grads):
        return None
    sizes = list(map(_numel, grads))
    try:
        parts = parts_of(grads, sizes)
        if not isinstance(parts, list):
            parts = list(parts) if joins_little(sizes) else []
        total = sum_of_plain(parts)
    except RuntimeError:  # of several devices or layouts
        return None
    if total is None:
        return None
    norm = math.sqrt(total)
    if norm > max_norm and not _multiply_(grads, sizes, max_norm / norm):  # type: ignore[operator]  # a number
        return None
    return torch.scalar_tensor(norm, dtype=torch.float32)


def _multiply_(grads: list[Tensor], sizes: list[int], factor: float) -> bool:
    """Multiply gradients of these sizes; or return False and leave them, if they or the factor are unusual."""
    if factor < _LEAST or not apart(grads, [4 * n for n in sizes]):
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
