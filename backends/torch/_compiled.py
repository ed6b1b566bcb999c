"""Under ``torch.compile``, clipping is one custom operation of the graph: no graph break, and the same code runs.

The time of clipping is the time of reading memory, so that a compiler cannot make it faster; traced, it would lose the
kernels for the host. Functions without a custom operation run between two graphs, without being compiled.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import wraps
from typing import Any, cast

import torch
from torch import Tensor

from gradclip import _checks
from gradclip._by_value import clamp_leaves_
from gradclip._calls import Function
from gradclip._decision import Rule
from gradclip._global import clip_leaves_, clip_leaves_with_, decide
from gradclip._number import as_number
from gradclip._types import AnyScalar, Nonfinite
from gradclip.backends.torch._leaves import Parameters, TorchLeaves, leaves_of
from gradclip.backends.torch._walk import tensors, walk
from gradclip.backends.torch.ops._exchange import ROW_NUMEL


def between_graphs(function: Function) -> Function:
    """Decorate a function so that ``torch.compile`` does not trace it: the graph breaks, and the function runs."""
    reason = (
        f"{function.__name__}() is no operation of a graph, expected torch.compile(fullgraph=False); call it outside "
        "of what is compiled, or use clip_grad_norm_(), clip_grad_value_() or attach(), which are"
    )
    untraced = untraced_because(reason, function)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (untraced if torch.compiler.is_compiling() else function)(*args, **kwargs)

    return cast("Function", call)


def untraced_because(reason: str, function: Any) -> Any:
    """Return a function that ``torch.compile`` does not trace, with the reason that its error gives."""
    disable: Any = torch.compiler.disable  # without annotations
    return disable(function, reason=reason)


SAYS_RANKS = (
    "group= and replicated= are no operation of a graph, expected torch.compile(fullgraph=False); clip outside of what "
    "is compiled. Without them, gradients that are DTensors are clipped in the graph"
)


def clip_norm_compiled_(
    parameters: Parameters,
    max_norm: AnyScalar | None,
    ord: float,
    nonfinite: Nonfinite,
    scale: AnyScalar,
    eps: AnyScalar,
) -> Tensor:
    """Clip by global norm as one operation of the graph that is being compiled."""
    grads, holders, place = _on_meshes(_found(parameters, "clip_grad_norm_"))
    if not grads and not holders:
        return torch.tensor(0.0)
    limit = None if max_norm is None else as_scalar(max_norm, "max_norm")
    loss_scale, small = as_scalar(scale, "scale"), as_scalar(eps, "eps")
    norm: Tensor = torch.ops.gradclip.clip_norm_(grads, holders, place, limit, loss_scale, ord, nonfinite, small)
    return norm


def clip_value_compiled_(parameters: Parameters, clip_value: AnyScalar) -> None:
    """Clip by value as one operation of the graph that is being compiled."""
    grads, _, _ = _on_meshes(_found(parameters, "clip_grad_value_"))
    if grads:
        torch.ops.gradclip.clip_value_(grads, as_scalar(clip_value, "clip_value"))


def total_norm_compiled(source: Parameters, ord: float, *, error: bool) -> Tensor:
    """Return the norm of tensors as one operation of the graph that is being compiled."""
    found = tensors(source, "tensors", "get_total_norm")
    grads, holders, place = _on_meshes((found.grads, found.holders))
    return torch.ops.gradclip.total_norm(grads, holders, place, ord, error) if grads or holders else torch.tensor(0.0)


def clip_with_norm_compiled_(parameters: Parameters, max_norm: AnyScalar | None, norm: AnyScalar) -> None:
    """Clip by a known norm as one operation of the graph that is being compiled."""
    grads, _, _ = _on_meshes(_found(parameters, "clip_grads_with_norm_"))
    if grads and max_norm is not None:
        torch.ops.gradclip.clip_with_norm_(grads, as_scalar(max_norm, "max_norm"), as_scalar(norm, "total_norm"))


def _found(parameters: Parameters, caller: str) -> tuple[list[Tensor], Sequence[Tensor]]:
    """Return the gradients of parameters, and what holds them."""
    if isinstance(parameters, list | tuple) and all(isinstance(p, torch.nn.Parameter) for p in parameters):
        return [p.grad for p in parameters if p.grad is not None], parameters
    opaque = _CANNOT_TELL_STATES and isinstance(parameters, OrderedDict)
    found = (_walk_between_graphs if opaque else walk)(parameters, "parameters", caller)
    return found.grads, found.holders


# Older versions do not trace hasattr of an OrderedDict, and the error of fullgraph=True does not say what is wrong.
_CANNOT_TELL_STATES = torch.__version__ < "2.13"  # compared as versions
_walk_between_graphs = untraced_because(
    f"parameters is an OrderedDict, which PyTorch {torch.__version__} cannot tell from a state_dict in a graph, "
    "expected the module, its parameters, or gradients in a dict; pass that, or compile without fullgraph=True",
    walk,
)


def _on_meshes(found: tuple[list[Tensor], Sequence[Tensor]]) -> tuple[list[Tensor], list[Tensor], list[int]]:
    """Return gradients, the DTensors that hold them, and this rank, the number of ranks, and the numel of a rank's row.

    Holders are returned because a parameter may have a gradient on other ranks only. The numbers are a part of the
    graph, because PyTorch keeps compiled graphs in a folder that processes and versions share, and what the rules for
    DTensors put into a graph depends on them.
    """
    grads, holders = found
    spread = [p.detach() for p in holders if hasattr(p, "device_mesh")]
    place = [0, 1, 0]
    if spread or any(hasattr(g, "device_mesh") for g in grads):
        place = [_rank_with_rules(), _number_of_ranks(), ROW_NUMEL]
    return grads, spread, place


def _use_rules() -> int:
    """Have PyTorch use the rules for DTensors, when the graph is made; return this rank."""
    import gradclip.backends.torch._compiled_ranks as ranks

    ranks.rules()
    return torch.distributed.get_rank()


def _world() -> int:
    """Return the number of ranks."""
    return torch.distributed.get_world_size()


_rank_with_rules: Any = torch.compiler.assume_constant_result(_use_rules)  # called when the graph is made
_number_of_ranks: Any = torch.compiler.assume_constant_result(_world)


def as_scalar(value: AnyScalar, name: str = "threshold") -> Tensor:
    """Return a number as a tensor, so that one graph serves all numbers; it is checked at run time."""
    if isinstance(value, Tensor):
        return value
    plain = value if type(value) in (float, int) else _read(value, name)
    return torch.full((), plain, dtype=torch.float64)


def _number(value: AnyScalar, name: str) -> AnyScalar:
    """Return a number of another type as a float or a 0-d tensor; raise TypeError if it is not a number."""
    return as_number(value, name, "a 0-d tensor")


_read: Any = torch.compiler.disable(_number)  # nobody traces what Decimal or NumPy do


def traced_leaves(grads: list[Tensor]) -> TorchLeaves:
    """Return leaves for the gradients passed to an operation of the graph. Their names are not known there."""
    return leaves_of(grads, lambda: [f"gradients[{i}]" for i in range(len(grads))])


def norm_like(grads: list[Tensor]) -> Tensor:
    """Return an empty tensor of the shape, dtype and device of the gradients' norm, for tracing."""
    double = any(g.dtype in (torch.float64, torch.complex128) for g in grads)
    return (grads[0] if grads else torch.empty(0)).new_empty((), dtype=torch.float64 if double else torch.float32)


@torch.library.custom_op("gradclip::clip_norm_", mutates_args={"grads"})
def _clip_norm_(
    grads: list[Tensor],
    holders: list[Tensor],  # noqa: ARG001  # DTensors, for which _compiled_ranks has a rule
    place: list[int],  # noqa: ARG001  # tells the graphs of ranks apart
    max_norm: Tensor | None,
    scale: Tensor,
    ord: float,
    nonfinite: str,
    eps: Tensor,
) -> Tensor:
    norm: Tensor = clip_leaves_(traced_leaves(grads), Rule(max_norm, ord, nonfinite, scale, eps)).norm
    return norm


@_clip_norm_.register_fake
def _(grads: list[Tensor], *_: object) -> Tensor:
    return norm_like(grads)


@torch.library.custom_op("gradclip::total_norm", mutates_args=())
def _total_norm(
    grads: list[Tensor],
    holders: list[Tensor],  # noqa: ARG001  # these two as in `_clip_norm_`
    place: list[int],  # noqa: ARG001
    ord: float,
    error: bool,
) -> Tensor:
    norm: Tensor = decide(traced_leaves(grads), Rule(None, ord, "error" if error else "propagate")).norm
    return norm


@_total_norm.register_fake
def _(grads: list[Tensor], *_: object) -> Tensor:
    return norm_like(grads)


@torch.library.custom_op("gradclip::clip_with_norm_", mutates_args={"grads"})
def _clip_with_norm_(grads: list[Tensor], max_norm: Tensor, norm: Tensor) -> None:
    limit = _checks.threshold(max_norm, "max_norm")
    clip_leaves_with_(traced_leaves(grads), limit, _checks.known_norm(norm, "total_norm"))


@_clip_with_norm_.register_fake
def _(grads: list[Tensor], max_norm: Tensor, norm: Tensor) -> None:
    pass


@torch.library.custom_op("gradclip::clip_value_", mutates_args={"grads"})
def _clip_value_(grads: list[Tensor], clip_value: Tensor) -> None:
    high = _checks.threshold(clip_value, "clip_value", optional=False)
    assert high is not None  # it is not optional
    clamp_leaves_(traced_leaves(grads), -high, high)


@_clip_value_.register_fake
def _(grads: list[Tensor], clip_value: Tensor) -> None:
    pass
