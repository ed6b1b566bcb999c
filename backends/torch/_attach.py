"""`attach`: clip an optimizer's gradients before every ``step()``, by PyTorch's public hooks."""

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from gradclip._types import Nonfinite, Scalar
from gradclip.backends.torch._handle import Clipping, clippings_of
from gradclip.backends.torch._optimizers import hooked, wrapped_in
from gradclip.backends.torch._sharing import Group, Replicated
from gradclip.backends.torch._step_clipper import StepClipper
from gradclip.policies._policy import AnyPolicy


def attach(
    optimizer: Optimizer | Sequence[Optimizer],
    max_norm: Scalar | AnyPolicy | None = None,
    *,
    max_value: Scalar | None = None,
    norm_type: float | str = 2.0,
    nonfinite: Nonfinite = "propagate",
    eps: float = 0.0,
    per_group: bool = False,
    group: Group = None,
    replicated: Replicated = (),
) -> "Clipping":
    """Clip an optimizer's gradients in place before each of its steps.

    A param group with ``"max_norm"``, a number or a policy, is clipped by its own norm; one with ``"clip": False`` is
    neither part of a norm nor clipped. The optimizer's state_dict, schedulers and attributes do not change. With a
    closure, the gradients are clipped after each evaluation, and not before the first. A second call on the same
    optimizer replaces the first clipping.

    With ``torch.amp.GradScaler``: gradients that are still scaled in a fused step are clipped by their unscaled norm.
    In a step that the scaler skips because gradients overflowed, nothing is clipped or raised, and the handle keeps
    the results of the step before.

    Copies and pickles of an optimizer have no hooks and are not clipped: attach to the copy. The host waits for the
    device only for ``nonfinite="error"``.

    Parameters
    ----------
    optimizer : Optimizer or sequence of Optimizer
        One of torch.optim, or another one whose ``step`` runs PyTorch's hooks. If it is a wrapper that runs no hooks,
        as Accelerate's, the clipping is attached to the optimizer that it wraps, if a public attribute holds that. For
        a sequence, one norm is computed over the gradients of all, and all are clipped when the first of them steps. If
        the gradients of another one change before it steps, all are clipped again.
    max_norm : float, 0-d tensor, Policy or None
        As for `clip_grad_norm_`; None: the norm only. A tensor is read at each step: write to it to change the
        threshold. A policy of `gradclip.policies` chooses the threshold; its state is in the handle. If it has one for
        each gradient, a parameter without a gradient in a step keeps its own. With a policy that skips steps, such a
        step changes nothing: neither parameters nor the optimizer's state.
    max_value : float, 0-d tensor or None
        Before the norm is computed, clip each element to ``[-max_value, max_value]``; None: do not. A tensor is read at
        each step.
    norm_type : float or "inf"
        The order of the norm, greater than 0.
    nonfinite : {"propagate", "error", "zero"}
        As for `clip_grad_norm_`. It is decided by the gradients before ``max_value`` is applied.
    eps : float
        Added to the norm in the denominator, as for `clip_grad_norm_`. 1e-6 gives PyTorch's results.
    per_group : bool
        Clip each param group by its own norm.
    group, replicated
        The ranks that hold parts of the model, and the parameters that are the same on all, as for `clip_grad_norm_`.
        If the step is compiled, clipping over ranks (also of DTensors) runs between two graphs, so that
        ``fullgraph=True`` is an error.

    Returns
    -------
    Clipping
        The handle. It has the norm and the coefficient of the last step, and whether it was clipped. ``max_norm`` can
        be set. ``remove()`` ends the clipping.

    Raises
    ------
    TypeError
        If ``optimizer`` is no Optimizer, if it runs no hooks and wraps no optimizer that does, or if an argument is not
        a number.
    ValueError
        If a threshold or ``eps`` is negative or NaN, ``norm_type`` is not greater than 0, or ``nonfinite`` is an
        unknown name. A threshold in a host tensor is checked at each step, before the first write.
    NonFiniteError
        From ``optimizer.step()``, if a gradient is NaN or inf and ``nonfinite="error"``.

    Examples
    --------
    >>> import torch
    >>> from gradclip.backends.torch import attach
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    >>> clipping = attach(optimizer, max_norm=1.0)
    >>> layer.weight.grad = torch.tensor([[3.0, 4.0]])
    >>> optimizer.step()
    >>> clipping.norm, clipping.coefficient, clipping.clipped
    (tensor(5.), tensor(0.2000), tensor(True))
    >>> clipping.max_norm = 0.5
    >>> clipping
    Clipping(max_norm=0.5, attached to SGD; last step: norm=5, coefficient=0.2, clipped=True)
    """
    several: list[Any] = list(optimizer) if isinstance(optimizer, list | tuple) else [optimizer]
    inner = list(map(hooked, several))
    if not inner or len(set(map(id, inner))) < len(inner):
        raise ValueError(
            f"optimizer is a sequence of {len(inner)} optimizers, expected at least one, and each once; pass the "
            "optimizers whose gradients have one norm"
        )
    clipping = Clipping(StepClipper(max_norm, max_value, norm_type, nonfinite, eps, per_group, group, replicated))
    clipping.check(inner)
    for earlier in [c for one in several for o in wrapped_in(one) for c in clippings_of(o)]:
        earlier.remove()
    clipping.begin(inner)
    return clipping
