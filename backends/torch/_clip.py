"""The functions of ``torch.nn.utils``, with their signatures: right where those are not, and in less time."""

import torch
from torch import Tensor

from gradclip import _checks
from gradclip._by_value import clamp_leaves_
from gradclip._decision import Rule
from gradclip._global import clip_leaves_, clip_leaves_with_, decide
from gradclip._types import Nonfinite, Scalar
from gradclip.backends.torch._arguments import listed, norm_order
from gradclip.backends.torch._compiled import (
    clip_norm_compiled_,
    clip_value_compiled_,
    clip_with_norm_compiled_,
    total_norm_compiled,
)
from gradclip.backends.torch._leaves import Parameters, gradients, leaves_found
from gradclip.backends.torch._walk import tensors as walk_tensors
from gradclip.backends.torch.ops._sharded import is_distributed, whole_of


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
) -> Tensor:
    r"""Clip the gradients of parameters by their global norm in place, and return the norm that they had.

    .. math:: g \leftarrow g \cdot \min\big(1, \tfrac{\text{max\_norm}}{\|g\| + \text{eps}}\big)

    It takes the place of :func:`torch.nn.utils.clip_grad_norm_`. Gradients that need no clipping are not written to
    in the host's memory, and keep their bits elsewhere.

    Parameters
    ----------
    parameters : Tensor, Module, Optimizer, iterable or dict
        Whose ``.grad`` is clipped: one tensor, a module, an optimizer, or an iterable of tensors, of (name, tensor) or
        of param groups. A dict of tensors that are no parameters, as ``torch.func.grad`` returns it, is a dict of
        gradients. Parameters without a gradient are left out, one that is passed twice counts once. Gradients may be
        of any shape, strides, floating-point or complex dtype and device, also expanded or sparse.
    max_norm : float, 0-d tensor or None
        The largest norm that is let through, at least 0. None or inf: the norm only. 0: zeros.
    norm_type : float or "inf"
        The order of the norm, greater than 0.
    error_if_nonfinite : bool
        Raise if a gradient is NaN or inf; this reads one flag back from the device.
    foreach : bool or None
        Accepted as in PyTorch; the fastest way is taken in any case.
    nonfinite : {"propagate", "error", "zero"}
        What becomes of gradients with NaN or inf. "zero": all become zero, decided on the device. "error" is
        ``error_if_nonfinite=True``.
    scale : float or 0-d tensor
        The loss scale, as of ``torch.amp.GradScaler.get_scale()``: still scaled gradients are divided by it in the same
        pass; ``max_norm`` and the norm are those of the unscaled ones.
    eps : float
        Added to the norm in the denominator. 1e-6 gives PyTorch's results to the last digits.

    Returns
    -------
    Tensor
        0-d, the norm before clipping, on the first gradient's device, without gradient: float64 if a gradient is
        float64 or complex128, else float32. Not read back from the device. 0 if there is no gradient.

    Warns
    -----
    UserWarning
        If ``parameters`` is an empty generator.

    Raises
    ------
    TypeError
        If ``parameters`` holds no parameters: None, a state_dict, gradients that are not in a dict, arrays of another
        library; or if an argument is not a number.
    ValueError
        If ``max_norm`` is negative or NaN, ``norm_type`` or ``scale`` not greater than 0, ``eps`` negative, or if
        gradients overlap in memory. Whatever is raised, nothing was written.
    NonFiniteError
        If a gradient is NaN or inf and ``error_if_nonfinite``: a RuntimeError whose message begins as PyTorch's and
        then names the gradient.

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
    policy = "error" if error_if_nonfinite else nonfinite
    if torch.compiler.is_compiling():
        return clip_norm_compiled_(parameters, max_norm, norm_order(norm_type), policy, scale, eps)
    with torch.no_grad():
        rule = Rule(max_norm, norm_order(norm_type), policy, scale, eps)
        norm: Tensor = clip_leaves_(gradients(parameters, caller="clip_grad_norm_"), rule).norm
        return norm


def clip_grad_value_(
    parameters: Parameters,
    clip_value: Scalar,
    foreach: bool | None = None,  # noqa: ARG001  # part of PyTorch's signature
) -> None:
    """Move each element of the gradients into ``[-clip_value, clip_value]`` in place.

    Parameters
    ----------
    parameters
        As for `clip_grad_norm_`.
    clip_value : float or 0-d tensor
        The bound, at least 0; inf for none. NaN stays NaN, ±inf goes to the bounds.
    foreach : bool or None
        Accepted as in PyTorch.

    Raises
    ------
    TypeError
        As `clip_grad_norm_`; also if a gradient is complex.
    ValueError
        If ``clip_value`` is negative or NaN, or gradients overlap in memory. Whatever is raised, nothing was written.

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
) -> Tensor:
    """Return the norm of all tensors laid end to end; these may be gradients or anything else.

    Parameters
    ----------
    tensors : Tensor, iterable or dict
        Tensors of floating-point or complex dtype; the norm of parameters is that of the weights. Of Modules and
        Optimizers, the gradients are taken.
    norm_type, error_if_nonfinite, foreach
        As for `clip_grad_norm_`.

    Returns
    -------
    Tensor
        As `clip_grad_norm_` returns it.

    Raises
    ------
    TypeError
        If something is no tensor of floating-point numbers.
    ValueError
        If ``norm_type`` is not greater than 0.
    NonFiniteError
        If an element is NaN or inf and ``error_if_nonfinite``: a RuntimeError, as for `clip_grad_norm_`.

    Examples
    --------
    >>> import torch
    >>> from gradclip.backends.torch import get_total_norm
    >>> get_total_norm([torch.tensor([3.0]), torch.tensor([4.0])])
    tensor(5.)
    """
    order = norm_order(norm_type)
    if torch.compiler.is_compiling():
        return total_norm_compiled(tensors, order, error=error_if_nonfinite)
    with torch.no_grad():
        leaves = leaves_found(walk_tensors(tensors, "tensors", "get_total_norm"))
        norm: Tensor = decide(leaves, Rule(None, order, "error" if error_if_nonfinite else "propagate")).norm
        return norm


def clip_grads_with_norm_(
    parameters: Parameters,
    max_norm: Scalar | None,
    total_norm: Scalar,
    foreach: bool | None = None,  # noqa: ARG001  # part of PyTorch's signature
) -> None:
    """Clip the gradients of parameters in place by a norm that is known already.

    Parameters
    ----------
    parameters, max_norm, foreach
        As for `clip_grad_norm_`.
    total_norm : 0-d tensor, float or NormPartial
        The norm of the whole, as `get_total_norm` returns it or as it was reduced over several ranks.

    Raises
    ------
    TypeError
        If ``parameters`` holds no parameters: None, a state_dict, gradients that are not in a dict, arrays of another
        library; or if an argument is not a number.
    ValueError
        If ``max_norm`` is negative or NaN, ``total_norm`` negative, or gradients overlap. Nothing was written then.

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
