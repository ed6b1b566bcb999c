"""The ordinary case in few calls: gradients of a list of parameters in the host's memory, and the Euclidean norm.

For a small model the time goes into Python, not into memory. Here only what such gradients need is asked of them;
whatever is unusual is left to the general way. Gradients on a GPU take a way as short.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from gradclip import _checks, _native, _tables
from gradclip._native import Table
from gradclip.backends.torch._host import multiply_, table_of, written
from gradclip.backends.torch._leaves import apart, kernels_for

_PARAMETERS = {Parameter}
_TENSORS = {Tensor}
_LEAST = 2.0**-1000
"""Coefficients from here on are multiplied by as one number: float64 holds it with all its digits."""


def clip_ordinary_(parameters: Any, max_norm: Any) -> Tensor | None:
    """Clip gradients in place and return their norm, or return None and leave them if anything is unusual."""
    if type(max_norm) not in (float, int) or not max_norm >= 0:
        return None
    grads = grads_of(parameters)
    if not grads:
        return None
    if not grads[0].is_cpu:
        return _clip_there_(grads, _checks.threshold(max_norm, "max_norm"))
    found = norm_of(grads)
    if found is None:
        return None
    norm, table = found
    if norm > max_norm and not multiply_plain_(grads, table, max_norm / norm):
        return None
    return torch.scalar_tensor(norm, dtype=torch.float32 if table.code else torch.float64, device="cpu")


def grads_of(parameters: Any) -> list[Tensor] | None:
    """Return the gradients in a list of parameters, or None if it is none."""
    if type(parameters) not in (list, tuple) or set(map(type, parameters)) != _PARAMETERS:
        return None
    return [g for p in parameters if (g := p.grad) is not None]


def norm_of(grads: list[Tensor]) -> tuple[float, Table] | None:
    """Return the norm of gradients and where they are, or None if they are not distinct and plain, or have no table."""
    kernels = _native.kernels()
    if kernels is None or len(set(map(id, grads))) < len(grads) or set(map(type, grads)) != _TENSORS:
        return None
    try:
        table = table_of(grads) if all([g.is_cpu for g in grads]) else None
    except RuntimeError:  # sparse, or traced by a transform of torch.func
        return None
    norm = None if table is None else _tables.norm_of(kernels, table, torch.get_num_threads())
    return None if table is None or norm is None else (norm, table)


def multiply_plain_(grads: list[Tensor], table: Table, factor: float) -> bool:
    """Multiply gradients that have a `norm_of`; or return False and leave them, if they overlap or it is too small."""
    if factor < _LEAST or not apart(grads):
        return False
    multiply_(table, factor)
    written(grads)
    return True


def _clip_there_(grads: list[Tensor], max_norm: Any) -> Tensor | None:
    kernels = kernels_for(grads[0].device)
    norm: Tensor | None = kernels.clip_plain_(grads, max_norm) if kernels else None
    return norm
