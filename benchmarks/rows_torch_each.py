"""torch's rows of functions that clip each gradient, or each unit of it, by its own norm, beside loops over them."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from benchmarks import frameworks, sets
from benchmarks.exact import relative_error, wide_norm
from benchmarks.row import CLIPPED, Budget, Contender, Row, Schedule, Setup
from benchmarks.sets import GradientSet, NDArray

_OURS, _MISSING = frameworks.adapter("torch")
_LOOP = "a loop over the gradients"
_AGC = "a loop over the parameters, as timm's adaptive_clip_grad"

Clip = Callable[[list[torch.nn.Parameter], float], object]
Exact = Callable[[NDArray, float], NDArray]


def by_norm(params: list[torch.nn.Parameter], most: float) -> None:
    """Clip each gradient by its norm, with torch's function."""
    for p in params:
        clip_grad_norm_([p], most)


def by_rms(params: list[torch.nn.Parameter], most: float) -> None:
    """Clip each gradient by its root mean square, as optax does."""
    for p in params:
        if p.grad is not None:
            rms = p.grad.norm() / math.sqrt(p.grad.numel())
            p.grad.mul_((most / (rms + 1e-6)).clamp(max=1))


def by_unit(params: list[torch.nn.Parameter], clipping: float, eps: float = 1e-3) -> None:
    """Clip each unit, as timm does: https://github.com/huggingface/pytorch-image-models, timm/utils/agc.py."""
    for p in params:
        if p.grad is None:
            continue
        grad, most = p.grad.detach(), _unit_norms(p.detach()).clamp_(min=eps).mul_(clipping)
        norm = _unit_norms(grad)
        grad.copy_(torch.where(norm < most, grad, grad * (most / norm.clamp(min=1e-6))))


def _unit_norms(x: Tensor) -> Tensor:
    norms: Tensor = x.norm(2.0) if x.dim() <= 1 else x.norm(2.0, dim=tuple(range(1, x.dim())), keepdim=True)
    return norms


def _floor(params: list[torch.nn.Parameter]) -> None:
    """Read each gradient and then write it, while it is in the cache."""
    for p in params:
        if p.grad is not None:
            p.grad.sum()
            p.grad.mul_(1.0)


def _floor_of_units(params: list[torch.nn.Parameter]) -> None:
    """Read each parameter, and do the same."""
    for p in params:
        p.detach().sum()
        _floor([p])


def exact_by_norm(x: NDArray, most: float) -> NDArray:
    """Return a gradient clipped by its norm, in float64."""
    clipped: NDArray = x * min(1.0, most / float(np.linalg.norm(x)))
    return clipped


def exact_by_rms(x: NDArray, most: float) -> NDArray:
    """Return a gradient clipped by its root mean square, in float64."""
    return exact_by_norm(x, most * math.sqrt(x.size))


def exact_by_unit(x: NDArray, clipping: float, eps: float = 1e-3) -> NDArray:
    """Return a gradient whose units are clipped, in float64; the parameter has the same values."""
    axes = tuple(range(1, x.ndim)) if x.ndim > 1 else None
    norm = np.sqrt(np.sum(x * x, axis=axes, keepdims=True))
    clipped: NDArray = x * np.minimum(1.0, clipping * np.maximum(norm, eps) / norm)
    return clipped


def each(
    name: str,
    gradients: GradientSet,
    most: float,
    loop: Clip,
    exact: Exact,
    peer: str,
    floor: Callable[[list[torch.nn.Parameter]], None] = _floor,
) -> Row:
    """Return the row of a function that clips each gradient on its own.

    Parameters
    ----------
    name : str
        Our function.
    gradients : GradientSet
        The gradients; the parameters have the same values.
    most : float
        The first threshold. It shrinks from call to call, so that each call clips.
    loop, peer : callable and str
        What the function is compared with, and its name.
    exact : callable
        Returns what a gradient becomes, in float64.
    floor : callable
        Reads and writes the same arrays, and does not clip.
    """

    def build(chosen: GradientSet) -> Setup:
        values = [torch.from_numpy(x) for x in sets.values(chosen, "float32")]
        params = [torch.nn.Parameter(x.clone()) for x in values]

        def restore() -> None:
            for p, x in zip(params, values, strict=True):
                p.grad = x.clone() if p.grad is None else p.grad.copy_(x)

        restore()
        right = wide_norm([exact(x.double().numpy(), most) for x in values])
        function: Any = getattr(_OURS, name)
        contenders = [
            Contender("gradclip.backends.torch", "ours", lambda limit: function(params, limit)),
            Contender(peer, "peer", lambda limit: loop(params, limit)),
            Contender("torch.sum, then mul_, of each", "floor", lambda _: floor(params)),
        ]

        def check(_: object, __: float) -> Mapping[str, float]:
            return {"result": relative_error(wide_norm([p.grad.numpy() for p in params if p.grad is not None]), right)}

        return Setup(contenders, Schedule(most, 0.98), check, restore)

    budgets = (Budget(peer, 2.0),) if gradients is sets.RESNET50 else ()
    return Row("torch", name, gradients, "float32", CLIPPED, build, (2, 1), budgets, _MISSING)


def rows() -> Iterable[Row]:
    """Return the rows."""
    for gradients in (sets.RESNET50, sets.MANY_SMALL):
        yield each("clip_by_norm_", gradients, 1e-2, by_norm, exact_by_norm, _LOOP)
        yield each("clip_by_rms_", gradients, 1e-4, by_rms, exact_by_rms, _LOOP)
        yield each("adaptive_grad_clip_", gradients, 1e-2, by_unit, exact_by_unit, _AGC, _floor_of_units)
