"""Clipping within the backward pass, for optimizers that step there and free each gradient after its use."""

import warnings
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

from gradclip import _checks
from gradclip._by_norm import clip_each_
from gradclip._by_value import clamp_leaves_
from gradclip._types import AnyScalar, Scalar
from gradclip._words import kind
from gradclip.backends.torch._arguments import norm_order
from gradclip.backends.torch._leaves import gradients
from gradclip.backends.torch._sharing import sharing_of

By: TypeAlias = Literal["norm", "rms", "value"]


def clip_in_backward(
    model: Module, threshold: Scalar, *, by: By = "norm", norm_type: float | str = 2.0
) -> "BackwardClipping":
    """Clip each gradient separately and in place, as soon as the backward pass has accumulated it.

    It is for optimizers that step within the backward pass. There, the gradients never exist at the same time, so that
    no global norm can be computed, and `clip_grad_norm_` after the pass would find no gradients. Call this function
    before you register the optimizer's own hooks: hooks run in the order of their registration. Parameters that are
    frozen at that time get no hook: call it again after they are unfrozen. A second call adds a second bound; call
    ``remove()`` to end the first one. The host waits for no accelerator.

    Parameters
    ----------
    model : Module
        The model whose parameters' gradients are clipped. The gradient of a tied parameter is clipped once, after all
        its terms are accumulated.
    threshold : float or 0-d tensor
        The largest norm, root mean square or absolute value of each gradient, at least 0. A tensor is read at each
        gradient: write to it to change the threshold.
    by : {"norm", "rms", "value"}
        What is compared with the threshold. "global_norm" raises ValueError.
    norm_type : float or "inf"
        The order of the norm for ``by="norm"``, greater than 0.

    Returns
    -------
    BackwardClipping
        The handle: ``threshold`` can be set, ``remove()`` ends the clipping.

    Raises
    ------
    TypeError
        If ``model`` is no Module, or ``threshold`` or ``norm_type`` is not a number.
    ValueError
        If ``threshold`` is negative or NaN, ``norm_type`` is not greater than 0, or ``by`` is another name.

    Examples
    --------
    >>> import torch
    >>> from gradclip.backends.torch import clip_in_backward
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> clipping = clip_in_backward(layer, 1.0)
    >>> layer(torch.tensor([[3.0, 4.0]])).sum().backward()
    >>> layer.weight.grad
    tensor([[0.6000, 0.8000]])
    """
    if not isinstance(model, Module):
        raise TypeError(f"model is {kind(model)}, expected a torch.nn.Module; pass the module itself")
    return BackwardClipping(model, threshold, by, norm_type)


class BackwardClipping:
    """What `clip_in_backward` returns: the hooks of a model's parameters, until they are removed.

    It can be pickled and copied. The copy clips nothing, because the parameters of a copied model have no hooks; a
    warning says so. Call `clip_in_backward` on the copy of the model.

    Attributes
    ----------
    threshold : float or 0-d tensor
        The largest norm, root mean square or absolute value of each gradient. It can be set; a tensor is read at each
        gradient.
    """

    __slots__ = ("__weakref__", "_by", "_hooks", "_norm_type", "_threshold")

    def __init__(self, model: Module, threshold: AnyScalar, by: By, norm_type: float | str) -> None:
        self.threshold = threshold
        self._by, self._norm_type = _checked(by), norm_order(norm_type)
        self._hooks: list[Any] = [
            p.register_post_accumulate_grad_hook(self._clip)
            for p in dict.fromkeys(model.parameters())  # tied parameters once
            if p.requires_grad
        ]

    @property
    def threshold(self) -> AnyScalar:
        """The largest norm, root mean square or absolute value of each gradient."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: AnyScalar) -> None:
        self._threshold = _checks.live_threshold(value, "threshold", optional=False)

    def remove(self) -> None:
        """Remove the hooks; gradients are no longer clipped. A second call does nothing."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def __repr__(self) -> str:
        n = len(self._hooks)
        where = f"{n or 'no'} parameter{'s' * (n != 1)}"
        return f"BackwardClipping(threshold={self.threshold!r}, by={self._by!r}, attached to {where})"

    def __getstate__(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "_by": self._by,
            "_norm_type": self._norm_type,
            "_hooks": self._hooks != [],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        if self._hooks:
            message = (
                "a copy of a BackwardClipping clips nothing, and the parameters of a copied model have no hooks: "
                "call clip_in_backward(model, ...) to clip the gradients of the copy"
            )
            warnings.warn(message, UserWarning, stacklevel=3)
        self._hooks = []

    @torch.no_grad()
    def _clip(self, p: Tensor) -> None:
        limit = _checks.threshold(self._threshold, "threshold", optional=False)
        leaves = gradients(p, sharing=None if self._by == "value" else sharing_of(p))
        if self._by == "value":
            assert limit is not None  # it is not optional
            clamp_leaves_(leaves, -limit, limit)
        elif self._by == "rms":
            numel = 0 if p.grad is None else p.grad.numel()  # of the whole gradient, also if it is sparse or sharded
            clip_each_(leaves, limit, 2.0, "clip_by_rms", [max(1, numel)])
        else:
            clip_each_(leaves, limit, self._norm_type, "clip_by_norm")


def _checked(by: str) -> str:
    """Return ``by``; raise ValueError if it is not "norm", "rms" or "value"."""
    if by == "global_norm":
        raise ValueError(
            'by="global_norm" cannot be had within the backward pass, expected "norm", "rms" or "value": the global '
            "norm is not known before the last gradient, when the first ones were used and freed. Clip each by its own "
            "norm, or step after the backward pass and use clip_grad_norm_() or attach()"
        )
    if by not in ("norm", "rms", "value"):
        raise ValueError(f'by={by!r}, expected "norm", "rms" or "value"; pass one of these')
    return by
