"""Clipping functions with the names and signatures of those in ``torch.nn.utils``."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from gradclip import _checks
from gradclip._by_value import clamp_leaves_
from gradclip._decision import Decision, Rule
from gradclip._global import clip_leaves_, clip_leaves_with_, decide
from gradclip._types import Nonfinite, Scalar
from gradclip.backends.torch._arguments import listed, norm_order
from gradclip.backends.torch._compiled import (
    SAYS_RANKS,
    clip_norm_compiled_,
    clip_value_compiled_,
    clip_with_norm_compiled_,
    total_norm_compiled,
    untraced_because,
)
from gradclip.backends.torch._groups import groups_of, parts_of
from gradclip.backends.torch._leaves import Parameters, TorchLeaves, gradients, leaves_found
from gradclip.backends.torch._sharing import Group, Replicated, are_none, sharing_of
from gradclip.backends.torch._walk import tensors as walk_tensors
from gradclip.backends.torch.ops._ownership import is_distributed, whole_of


def clip_grad_norm_(
    parameters: Parameters,
    max_norm: Scalar | None,
    norm_type: float | str = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,  # noqa: ARG001  # part of PyTorch's signature
    *,
    nonfinite: Nonfinite = "propagate",
    scale: Scalar = 1.0,
    eps: float = 0.0,
    group: Group = None,
    replicated: Replicated = (),
) -> Tensor:
    r"""Clip the gradients of parameters by their global norm in place, and return the norm before clipping.

    .. math:: g \leftarrow g \cdot \min\big(1, \tfrac{\text{max\_norm}}{\|g\| + \text{eps}}\big)

    It replaces :func:`torch.nn.utils.clip_grad_norm_`. If the norm is at most ``max_norm``, gradients on a host are not
    written, and gradients on other devices keep their bits.

    Parameters
    ----------
    parameters : Tensor, Module, Optimizer, iterable or dict
        The parameters whose ``.grad`` is clipped: one tensor, a module, an optimizer, or an iterable of tensors, of
        (name, tensor) or of param groups. A dict of tensors that are no parameters, as ``torch.func.grad`` returns it,
        is a dict of gradients. Parameters without a gradient are left out; a parameter passed twice counts once.
        Param groups may have keys of their own, as for `attach`; then the norm is that of the groups without them.
        Gradients may have any shape, strides, device, and floating-point or complex dtype; they may be expanded or
        sparse.
    max_norm : float, 0-d tensor or None
        The threshold, at least 0. None or inf: no clipping, the norm only. 0: the gradients become zero.
    norm_type : float or "inf"
        The order of the norm, greater than 0.
    error_if_nonfinite : bool
        Raise NonFiniteError if a gradient is NaN or inf. The host then waits for the device and reads one boolean.
    foreach : bool or None
        Part of PyTorch's signature; ignored.
    nonfinite : {"propagate", "error", "zero"}
        What to do if a gradient is NaN or inf. "propagate": NaN spreads, as in PyTorch. "zero": all gradients become
        zero; this is decided on the device. "error": the same as ``error_if_nonfinite=True``.
    scale : float or 0-d tensor
        The loss scale, as ``torch.amp.GradScaler.get_scale()`` returns it, greater than 0. Gradients are divided by it
        in the same pass; ``max_norm`` and the norm refer to the gradients divided by it.
    eps : float
        Added to the norm in the denominator, at least 0. 1e-6 gives PyTorch's results to rounding.
    group : ProcessGroup, DeviceMesh or None
        The ranks that hold parts of the model, all of which call this function: pipeline stages, experts, the shards of
        FSDP1. The norm is that of all their gradients, from one small collective. None: the gradients of this process
        are all there are or, if they are DTensors, those of all ranks.
    replicated : bool, Module or iterable of Tensor
        The parameters of which all ranks of the group hold the same gradient, which counts once. True: all parameters
        that are plain tensors. What a DTensor's placements say need not be declared.

    Returns
    -------
    Tensor
        0-d, the norm before clipping, on the first gradient's device; autograd does not record it. float64 if a
        gradient is float64 or complex128, else float32. The host does not wait for it. 0 if there is no gradient.

    Warns
    -----
    UserWarning
        If ``parameters`` is an empty generator.

    Raises
    ------
    TypeError
        If ``parameters`` is None, a state_dict, gradients that are not in a dict, or arrays of another library; or if
        another argument is not a number.
    ValueError
        If ``max_norm`` is negative or NaN, ``norm_type`` or ``scale`` is not greater than 0, ``eps`` is negative,
        ``nonfinite`` is an unknown name, or gradients overlap in memory. All errors are raised before the first write.
        On every rank, if ``max_norm`` or ``norm_type`` differ between ranks, or if without ``group`` the norm would
        differ: for FSDP1's parameters, for meshes that do not hold all ranks, and for plain tensors beside DTensors.
    RuntimeError
        If another rank raised an error before the norm was known.
    NonFiniteError
        If a gradient is NaN or inf, and ``error_if_nonfinite`` or ``nonfinite="error"``. It is a RuntimeError; its
        message begins as PyTorch's does, and names the gradient.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
       arXiv:1211.5063, Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from gradclip.backends.torch import clip_grad_norm_
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> layer.weight.grad = torch.tensor([[3.0, 4.0]])
    >>> clip_grad_norm_(layer.parameters(), 1.0)
    tensor(5.)
    >>> layer.weight.grad
    tensor([[0.6000, 0.8000]])
    """
    parameters = listed(parameters)
    nonfinite = "error" if error_if_nonfinite else nonfinite
    if own := groups_of(parameters):
        rule = Rule(max_norm, norm_order(norm_type), nonfinite, scale, eps)
        clip: Any = torch.compiler.disable(clip_parts_)
        whole: Tensor = clip(own, rule, group, replicated)
        return whole
    if torch.compiler.is_compiling() and _is_inferred(group, replicated):
        return clip_norm_compiled_(parameters, max_norm, norm_order(norm_type), nonfinite, scale, eps)
    clip = _clip_between_graphs_ if torch.compiler.is_compiling() else _clip_on_ranks_
    norm: Tensor = clip(parameters, (max_norm, norm_type, nonfinite, scale, eps), group, replicated)
    return norm


def _clip_on_ranks_(parameters: Parameters, arguments: tuple[Any, ...], group: Group, replicated: Replicated) -> Tensor:
    with torch.no_grad(), sharing_of(parameters, group, replicated) as sharing:  # it tells other ranks of errors
        max_norm, norm_type, nonfinite, scale, eps = arguments
        rule = Rule(max_norm, norm_order(norm_type), nonfinite, scale, eps)
        norm: Tensor = clip_leaves_(gradients(parameters, caller="clip_grad_norm_", sharing=sharing), rule).norm
        return norm


_clip_between_graphs_ = untraced_because(SAYS_RANKS, _clip_on_ranks_)


def _is_inferred(group: Group, replicated: Replicated) -> bool:
    """Whether the caller says nothing of other ranks."""
    return group is None and are_none(replicated)


@torch.no_grad()
def clip_parts_(groups: Sequence[Mapping[str, Any]], rule: Rule, group: Group, replicated: Replicated) -> Tensor:
    """Clip param groups of which some have thresholds of their own; return the norm of the others."""
    with ExitStack() as ranks:
        decided: list[tuple[TorchLeaves, Decision]] = []
        parts = parts_of(groups)
        for number, part in enumerate(parts, start=1):
            params = [p for i in part.groups for p in groups[i]["params"]]
            sharing = ranks.enter_context(sharing_of(params, group, replicated, part=True))
            name = f"param_groups{part.groups}"
            leaves = gradients(params, name, "clip_grad_norm_", sharing)
            limit = part.max_norm if part.own else rule.max_norm
            leaves = leaves.on_terms(rule, part=f"{number} of {len(parts)}")
            decided.append((leaves, decide(leaves, Rule(limit, rule.ord, rule.nonfinite, rule.loss_scale, rule.eps))))
        for leaves, decision in decided:
            leaves.scale_([decision.coefficient] * len(leaves.arrays), "clip_by_global_norm")
    norm: Tensor = decided[0][1].norm
    return norm


def clip_grad_value_(
    parameters: Parameters,
    clip_value: Scalar,
    foreach: bool | None = None,  # noqa: ARG001  # part of PyTorch's signature
) -> None:
    """Clip each element of the gradients to ``[-clip_value, clip_value]`` in place.

    The host waits for no accelerator.

    Parameters
    ----------
    parameters
        As for `clip_grad_norm_`.
    clip_value : float or 0-d tensor
        The bound, at least 0; inf: no bound. NaN stays NaN, ±inf becomes the bounds.
    foreach : bool or None
        Part of PyTorch's signature; ignored.

    Raises
    ------
    TypeError
        As for `clip_grad_norm_`; also if a gradient is complex.
    ValueError
        If ``clip_value`` is negative or NaN, or gradients overlap in memory. All errors are raised before the first
        write.

    Examples
    --------
    >>> import torch
    >>> from gradclip.backends.torch import clip_grad_value_
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> layer.weight.grad = torch.tensor([[3.0, -0.5]])
    >>> clip_grad_value_(layer.parameters(), 1.0)
    >>> layer.weight.grad
    tensor([[ 1.0000, -0.5000]])
    """
    if torch.compiler.is_compiling():
        return clip_value_compiled_(listed(parameters), clip_value)
    with torch.no_grad():
        high = _checks.threshold(clip_value, "clip_value", optional=False)
        assert high is not None  # it is not optional
        clamp_leaves_(gradients(listed(parameters), caller="clip_grad_value_"), -high, high)
    return None


def get_total_norm(
    tensors: Parameters,
    norm_type: float | str = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,  # noqa: ARG001  # part of PyTorch's signature
    *,
    group: Group = None,
    replicated: Replicated = (),
) -> Tensor:
    """Return the norm of all tensors laid end to end.

    Parameters
    ----------
    tensors : Tensor, Module, Optimizer, iterable or dict
        Tensors of any shape and of floating-point or complex dtype: gradients, weights or others. For a Module or an
        Optimizer, the norm is that of its gradients; for an iterable of parameters, that of the weights.
    norm_type, error_if_nonfinite, foreach, group, replicated
        As for `clip_grad_norm_`.

    Returns
    -------
    Tensor
        0-d, as `clip_grad_norm_` returns it. The host waits for it only if ``error_if_nonfinite``.

    Raises
    ------
    TypeError
        If ``tensors`` holds anything but tensors of floating-point or complex numbers.
    ValueError
        If ``norm_type`` is not greater than 0.
    NonFiniteError
        If an element is NaN or inf and ``error_if_nonfinite``. It is a RuntimeError, as for `clip_grad_norm_`.

    Examples
    --------
    >>> import torch
    >>> from gradclip.backends.torch import get_total_norm
    >>> get_total_norm([torch.tensor([3.0]), torch.tensor([4.0])])
    tensor(5.)
    """
    if torch.compiler.is_compiling() and _is_inferred(group, replicated):
        return total_norm_compiled(tensors, norm_order(norm_type), error=error_if_nonfinite)
    measure = _norm_between_graphs if torch.compiler.is_compiling() else _norm_on_ranks
    norm: Tensor = measure(listed(tensors), norm_type, error_if_nonfinite, group, replicated)
    return norm


def _norm_on_ranks(
    tensors: Parameters, norm_type: float | str, error: bool, group: Group, replicated: Replicated
) -> Tensor:
    with torch.no_grad(), sharing_of(tensors, group, replicated) as sharing:
        leaves = leaves_found(walk_tensors(tensors, "tensors", "get_total_norm"), sharing)
        rule = Rule(None, norm_order(norm_type), "error" if error else "propagate")
        norm: Tensor = decide(leaves, rule).norm
        return norm


_norm_between_graphs = untraced_because(SAYS_RANKS, _norm_on_ranks)


def clip_grads_with_norm_(
    parameters: Parameters,
    max_norm: Scalar | None,
    total_norm: Scalar,
    foreach: bool | None = None,  # noqa: ARG001  # part of PyTorch's signature
) -> None:
    """Clip the gradients of parameters in place by a norm that the caller passes.

    The host waits for no accelerator.

    Parameters
    ----------
    parameters, max_norm, foreach
        As for `clip_grad_norm_`.
    total_norm : 0-d tensor, float or NormPartial
        The norm of all gradients, as `get_total_norm` returns it, or as a reduction over several ranks gives it.

    Raises
    ------
    TypeError
        If ``parameters`` is None, a state_dict, gradients that are not in a dict, or arrays of another library; or if
        another argument is not a number.
    ValueError
        If ``max_norm`` is negative or NaN, ``total_norm`` is negative, or gradients overlap in memory. All errors are
        raised before the first write.

    Examples
    --------
    >>> import torch
    >>> from gradclip.backends.torch import clip_grads_with_norm_
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> layer.weight.grad = torch.tensor([[3.0, 4.0]])
    >>> clip_grads_with_norm_(layer.parameters(), 1.0, torch.tensor(10.0))
    >>> layer.weight.grad
    tensor([[0.3000, 0.4000]])
    """
    if torch.compiler.is_compiling():
        return clip_with_norm_compiled_(listed(parameters), max_norm, total_norm)
    if is_distributed(total_norm):  # as torch.nn.utils gives it for gradients on a mesh
        total_norm = whole_of(total_norm)
    with torch.no_grad():
        limit, known = _checks.threshold(max_norm, "max_norm"), _checks.known_norm(total_norm, "total_norm")
        clip_leaves_with_(gradients(listed(parameters), caller="clip_grads_with_norm_"), limit, known)
    return None
