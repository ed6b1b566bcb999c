"""Clipping that lives in the optimizer: before every ``step()``, by the public hooks."""

from torch.optim import Optimizer

from gradclip._types import Nonfinite, Scalar
from gradclip.backends.torch._handle import Clipping, clippings_of
from gradclip.backends.torch._optimizers import hooked, wrapped_in


def attach(
    optimizer: Optimizer,
    max_norm: Scalar | None = None,
    *,
    max_value: Scalar | None = None,
    norm_type: float | str = 2.0,
    nonfinite: Nonfinite = "propagate",
    eps: float = 0.0,
    per_group: bool = False,
) -> "Clipping":
    """Clip an optimizer's gradients in place before each of its steps.

    Nothing is written to the optimizer: its state_dict, its schedulers and its attributes are as they would be without.
    With a closure, the gradients are clipped after each evaluation, and not before the first. A second call on the same
    optimizer replaces the first, whose handle is removed.

    With ``torch.amp.GradScaler``: gradients that it leaves scaled for a fused step are clipped by their unscaled norm.
    A step that it skips because gradients overflowed clips nothing, raises nothing, and leaves the handle as it was.

    Copies and pickles of an optimizer have no hooks, and are not clipped: attach to the copy.

    Parameters
    ----------
    optimizer : Optimizer
        Any of torch.optim's, or another one whose ``step`` runs PyTorch's hooks. A wrapper that runs none (as
        Accelerate's) is unwrapped, if one of its public attributes is the optimizer that it wraps.
    max_norm : float, 0-d tensor or None
        As for `clip_grad_norm_`; None for the norm only. A tensor is read at each step: fill it anew to change it.
    max_value : float, 0-d tensor or None
        Clip each element into ``[-max_value, max_value]`` before; None for not. A tensor is read at each step.
    norm_type : float
        The order of the norm, greater than 0, or ``math.inf``.
    nonfinite : {"propagate", "error", "zero"}
        As for `clip_grad_norm_`, of the gradients as they come, before ``max_value`` bounds them.
    eps : float
        Added to the norm in the denominator, as for `clip_grad_norm_`. 1e-6 gives PyTorch's results.
    per_group : bool
        Clip each param group by the norm of its own.

    Returns
    -------
    Clipping
        The handle: the norm, the coefficient and whether it clipped, of the last step; ``max_norm`` can be set;
        ``remove()`` ends it.

    Raises
    ------
    TypeError
        If ``optimizer`` is no Optimizer, or runs no hooks and wraps none that does, or an argument is not a number.
    ValueError
        If a threshold or ``eps`` is negative or NaN, ``norm_type`` not greater than 0, or ``nonfinite`` an unknown
        name. A threshold in a tensor is checked at each step, before anything is written.

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
    inner = hooked(optimizer)
    clipping = Clipping(max_norm, max_value, norm_type, nonfinite, eps, per_group)
    for earlier in [c for o in wrapped_in(optimizer) for c in clippings_of(o)]:
        earlier.remove()
    clipping.begin(inner)
    return clipping
