"""Under ``torch.compile``, clipping is one opaque operation of the graph: no graph break, and the same code runs.

It is bound by memory, so that there is nothing for a compiler to gain in it, while the host's fast way would be lost.
"""

import torch
from torch import Tensor

from gradclip._by_value import clamp_leaves_
from gradclip._global import Rule, clip_leaves_
from gradclip._types import Nonfinite, Scalar
from gradclip.backends.torch._leaves import Parameters, as_tensor, leaves_of
from gradclip.backends.torch._walk import walk


def clip_norm_compiled_(
    parameters: Parameters, max_norm: Scalar | None, ord: float, nonfinite: Nonfinite, scale: Scalar, eps: float
) -> Tensor:
    """Clip by global norm as one operation of the graph that is being compiled."""
    grads = _grads(parameters)
    if not grads:
        return torch.tensor(0.0)
    limit = None if max_norm is None else _as_scalar(max_norm)
    return torch.ops.gradclip.clip_norm_(grads, limit, _as_scalar(scale), ord, nonfinite, eps)  # type: ignore[no-any-return]


def clip_value_compiled_(parameters: Parameters, clip_value: Scalar) -> None:
    """Clip by value as one operation of the graph that is being compiled."""
    grads = _grads(parameters)
    if grads:
        torch.ops.gradclip.clip_value_(grads, _as_scalar(clip_value))


def _grads(parameters: Parameters) -> list[Tensor]:
    if isinstance(parameters, list | tuple) and all(isinstance(p, torch.nn.Parameter) for p in parameters):
        return [p.grad for p in parameters if p.grad is not None]
    return walk(parameters, "parameters").grads


def _as_scalar(value: Scalar) -> Tensor:
    """Return a number as a 0-d tensor, so that another threshold does not mean another graph."""
    return value if isinstance(value, Tensor) else torch.full((), value, dtype=torch.float64)


@torch.library.custom_op("gradclip::clip_norm_", mutates_args={"grads"})
def _clip_norm_(
    grads: list[Tensor], max_norm: Tensor | None, scale: Tensor, ord: float, nonfinite: str, eps: float
) -> Tensor:
    leaves = leaves_of(grads, lambda: [f"gradients[{i}]" for i in range(len(grads))])
    return as_tensor(clip_leaves_(leaves, Rule(max_norm, ord, nonfinite, scale, eps)))


@_clip_norm_.register_fake
def _(
    grads: list[Tensor],
    max_norm: Tensor | None,  # noqa: ARG001  # the norm's shape and dtype depend on the gradients only
    scale: Tensor,  # noqa: ARG001
    ord: float,  # noqa: ARG001
    nonfinite: str,  # noqa: ARG001
    eps: float,  # noqa: ARG001
) -> Tensor:
    double = any(g.dtype in (torch.float64, torch.complex128) for g in grads)
    return grads[0].new_empty((), dtype=torch.float64 if double else torch.float32)


@torch.library.custom_op("gradclip::clip_value_", mutates_args={"grads"})
def _clip_value_(grads: list[Tensor], clip_value: Tensor) -> None:
    leaves = leaves_of(grads, lambda: [f"gradients[{i}]" for i in range(len(grads))])
    high = float(clip_value) if clip_value.device.type == "cpu" else clip_value
    clamp_leaves_(leaves, -high, high)


@_clip_value_.register_fake
def _(grads: list[Tensor], clip_value: Tensor) -> None:
    pass
