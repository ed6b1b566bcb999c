"""The ordinary case in few calls: float32 gradients of a list of parameters on the CPU, and the Euclidean norm.

For a small model the time goes into Python, not into memory. Here only what such gradients need is asked of them;
whatever is unusual is left to the general way.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from gradclip._global import clip_leaves_with_
from gradclip._partial import NormPartial
from gradclip.backends.torch._host import sum_of_squares
from gradclip.backends.torch._leaves import HOST, TorchLeaves, paths_of

_PARAMETERS, _DENSE, _FLOAT, _CPU = {Parameter}, {torch.strided}, {torch.float32}, {torch.device("cpu")}


def clip_ordinary_(parameters: object, max_norm: object) -> Tensor | None:
    """Clip gradients in place and return their norm, or return None and leave them if anything is unusual."""
    if type(max_norm) not in (float, int) or not max_norm >= 0 or torch.compiler.is_compiling():  # type: ignore[operator]
        return None
    if type(parameters) not in (list, tuple) or set(map(type, parameters)) != _PARAMETERS:  # type: ignore[call-overload]
        return None
    found = [p.grad for p in parameters]  # type: ignore[attr-defined]  # a list or tuple of parameters
    grads = [g for g in found if g is not None]
    if {g.dtype for g in grads} != _FLOAT or {g.device for g in grads} != _CPU or {g.layout for g in grads} != _DENSE:
        return None
    if len(set(map(id, grads))) < len(grads) or set(map(type, grads)) != {Tensor}:
        return None
    squares = sum_of_squares(grads)
    if squares is None or not squares.right():
        return None
    norm = math.sqrt(squares.total)
    if norm > max_norm:  # type: ignore[operator]  # a number
        leaves = TorchLeaves(grads, HOST, range(len(grads)), list, lambda: paths_of(found, "parameters"))
        partial = NormPartial(np.float64(1.0), np.float64(squares.total), 2.0, np.float32)
        clip_leaves_with_(leaves, float(max_norm), partial)  # type: ignore[arg-type]
    return torch.scalar_tensor(norm, dtype=torch.float32)
