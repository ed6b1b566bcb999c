"""Clipping of spikes for the optimizers of Adam's kind, whose second moments are in their state."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradclip import _checks
from gradclip._spikes import clip_spikes_of_
from gradclip._types import Scalar
from gradclip._words import kind
from gradclip.backends.torch._compiled import between_graphs
from gradclip.backends.torch._leaves import leaves_of
from gradclip.backends.torch.ops._ownership import parts_of


@between_graphs
@torch.no_grad()
def clip_spikes_(optimizer: Optimizer, threshold: Scalar = 5000.0) -> None:
    r"""Clip spikes in place: each element's square is at most ``threshold`` times its second moment (SPAM).

    .. math:: g \leftarrow \operatorname{sign}(g)\,\sqrt{\theta v} \quad \text{where } g^2 > \theta v

    Call it before ``optimizer.step()``. The host waits for no accelerator.

    Parameters
    ----------
    optimizer : Optimizer
        Adam, AdamW or another one that keeps ``exp_avg_sq``. Parameters without a gradient, and those that had no step
        yet, are left out. DTensors are clipped part by part.
    threshold : float or 0-d tensor
        θ, at least 0; inf: no clipping.

    Raises
    ------
    TypeError
        If ``optimizer`` is no Optimizer, a gradient is complex or sparse, or ``threshold`` is not a number.
    ValueError
        If ``threshold`` is negative or NaN, gradients overlap in memory, or the optimizer keeps no ``exp_avg_sq``. All
        errors are raised before the first write.

    Notes
    -----
    As for `clip_spikes`: SPAM clips from its twentieth step on, and not in the 20 steps after it has set the moments to
    zero. A new second moment of 0 clips nothing.

    References
    ----------
    .. [1] T. Huang, Z. Zhu, G. Jin, L. Liu, Z. Wang, S. Liu, "SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM
       Training", ICLR 2025, arXiv:2501.06842, section 4.

    Examples
    --------
    >>> import torch
    >>> from gradclip.backends.torch import clip_spikes_
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> optimizer = torch.optim.Adam([weight])
    >>> for gradient in [[0.1, 0.1], [0.1, -9.0]]:
    ...     weight.grad = torch.tensor(gradient)
    ...     clip_spikes_(optimizer)
    ...     optimizer.step()
    >>> weight.grad
    tensor([ 0.1000, -0.2236])
    """
    theta = _checks.threshold(threshold, "threshold", optional=False)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer is {kind(optimizer)}, expected a torch.optim.Optimizer; for gradients and second moments in "
            "containers, use clip_spikes()"
        )
    grads, moments = _pairs(optimizer)
    leaves = leaves_of(grads, lambda: [f"optimizer's gradient {i}" for i in range(len(grads))])
    clip_spikes_of_(leaves, leaves.firsts(moments), theta)


def _pairs(optimizer: Optimizer) -> tuple[list[Tensor], list[Tensor]]:
    """Return gradients and their second moments, of parameters that have both."""
    states = [
        (p, optimizer.state[p]) for group in optimizer.param_groups for p in group["params"] if p in optimizer.state
    ]
    if states and not any("exp_avg_sq" in state for _, state in states):
        raise ValueError(
            f"{type(optimizer).__name__} keeps no exp_avg_sq, expected an optimizer of Adam's kind; for other second "
            "moments, use clip_spikes()"
        )
    found = [(p.grad, state["exp_avg_sq"]) for p, state in states if p.grad is not None and "exp_avg_sq" in state]
    for grad, _ in found:
        if grad.layout is not torch.strided:
            raise TypeError(f"a gradient has layout {grad.layout}, expected dense gradients; make it dense first")
    grads, moments = ([pair[i] for pair in found] for i in (0, 1))
    return parts_of(grads), parts_of(moments)
