"""Clipping within the backward pass, for training whose optimizer steps there too and frees each gradient at once."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

from gradclip import _checks
from gradclip._by_norm import Limit, clip_each_, rms_limit
from gradclip._by_value import clamp_leaves_
from gradclip._types import Scalar
from gradclip.backends.torch._leaves import gradients

By: TypeAlias = Literal["norm", "rms", "value"]


def clip_in_backward(
    model: Module, threshold: Scalar, *, by: By = "norm", norm_type: float = 2.0
) -> "BackwardClipping":
    """Clip each gradient by itself, as soon as the backward pass has accumulated it.

    For optimizers that step within the backward pass: there the gradients never exist all at once, so that a global
    norm cannot be known, and `clip_grad_norm_` after the pass would find nothing to clip. Attach this before the
    optimizer's own hooks: they run in the order in which they were registered.

    Parameters
    ----------
    model : Module
        Whose parameters' gradients are clipped. A tied parameter is clipped once, when all its parts have come.
    threshold : float or 0-d tensor
        The largest norm, root mean square or absolute value of each gradient, at least 0.
    by : {"norm", "rms", "value"}
        What is bounded. "global_norm" raises and says why.
    norm_type : float
        The order of the norm, greater than 0, or ``math.inf``.

    Returns
    -------
    BackwardClipping
        With ``remove()``.

    Raises
    ------
    TypeError
        If ``model`` is no Module, or an argument not a number.
    ValueError
        If ``threshold`` is negative or NaN, ``norm_type`` not greater than 0, or ``by`` another name.

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
        raise TypeError(f"model is a {type(model).__name__}, expected a torch.nn.Module; pass the module itself")
    limit = _checks.threshold(threshold, "threshold", optional=False)
    return BackwardClipping(model, _clip_by(by, limit, _checks.order(norm_type, "norm_type")))


class BackwardClipping:
    """What `clip_in_backward` returns: the hooks of a model's parameters, until they are removed."""

    def __init__(self, model: Module, clip: Callable[[Tensor], None]) -> None:
        self._hooks = [
            p.register_post_accumulate_grad_hook(clip)  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
            for p in dict.fromkeys(model.parameters())  # tied parameters once
            if p.requires_grad
        ]

    def remove(self) -> None:
        """Clip no longer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def _clip_by(by: str, limit: Scalar, order: float) -> Callable[[Tensor], None]:
    """Return what clips one parameter's gradient."""
    if by == "value":

        @torch.no_grad()
        def clip(p: Tensor) -> None:
            clamp_leaves_(gradients(p), -limit, limit)

        return clip
    bound = _bound(by, limit)

    @torch.no_grad()
    def clip_norm(p: Tensor) -> None:
        clip_each_(gradients(p), bound, order if by == "norm" else 2.0, "clip_by_norm")

    return clip_norm


def _bound(by: str, limit: Scalar) -> Limit:
    if by == "norm":
        return lambda *_: limit
    if by == "rms":
        return rms_limit(limit)
    if by == "global_norm":
        raise ValueError(
            'by="global_norm" cannot be had within the backward pass, expected "norm", "rms" or "value": the global '
            "norm is not known before the last gradient, when the first ones were used and freed. Clip each by its own "
            "norm, or step after the backward pass and use clip_grad_norm_() or attach()"
        )
    raise ValueError(f'by={by!r}, expected "norm", "rms" or "value"; pass one of these')
