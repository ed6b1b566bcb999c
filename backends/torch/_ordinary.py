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
from gradclip.backends.torch._squares import joins_little, parts_of, sizes_of, sum_of_plain

_PARAMETERS = {Parameter}
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
    sizes = sizes_of(grads)
    total = _sum_of_squares(grads, sizes)
    if total is None:
        return None
    norm = math.sqrt(total)
    if norm > max_norm:  # type: ignore[operator]  # a number
        factor = max_norm / norm  # type: ignore[operator]
        if factor < _LEAST or not apart(grads, [4 * n for n in sizes]):
            return None
        with torch.inference_mode():  # which leaves out more than no_grad does; these tensors stay what they are
            multiply_(grads, factor)
    return torch.scalar_tensor(norm, dtype=torch.float32)


def _clip_there_(grads: list[Tensor], max_norm: Any) -> Tensor | None:
    kernels = kernels_for(grads[0].device)
    norm: Tensor | None = kernels.clip_plain_(grads, max_norm) if kernels else None
    return norm


def _sum_of_squares(grads: list[Tensor], sizes: list[int]) -> float | None:
    """Return the sum of squares of distinct gradients that are plain (see `sum_of_plain`), or None if they are not."""
    if len(set(map(id, grads))) < len(grads) or not joins_little(sizes):
        return None
    try:
        return sum_of_plain(list(parts_of(grads, sizes)))
    except RuntimeError:  # of several devices or layouts
        return None
