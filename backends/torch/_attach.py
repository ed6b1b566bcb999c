"""Clipping that lives in the optimizer: before every ``step()``, by the public hooks."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradclip import _checks
from gradclip._by_value import clamp_leaves_
from gradclip._coefficient import Coefficient
from gradclip._finished import FinishingRule
from gradclip._global import decide
from gradclip._types import Nonfinite, Scalar
from gradclip.backends.torch._fused import Fold, foldable
from gradclip.backends.torch._leaves import as_tensor, gradients
from gradclip.backends.torch._ordinary import LEAST, grads_of, multiply_plain_, norm_of
from gradclip.backends.torch._squares import sizes_of


def attach(
    optimizer: Optimizer,
    max_norm: Scalar | None = None,
    *,
    max_value: Scalar | None = None,
    norm_type: float = 2.0,
    nonfinite: Nonfinite = "propagate",
    per_group: bool = False,
) -> "Clipping":
    """Clip an optimizer's gradients before each of its steps.

    Fused optimizers (``fused=True``) on the CPU multiply by the coefficient within the step, so that clipping costs
    them one read of the gradients and no pass of writing. With a closure, the gradients are clipped after each
    evaluation. Gradients that ``torch.amp.GradScaler`` has not unscaled yet are clipped by their unscaled norm.

    Parameters
    ----------
    optimizer : Optimizer
        Any of torch.optim's, or of others with its step hooks. Schedulers and state_dicts are not touched.
    max_norm : float, 0-d tensor or None
        As for `clip_grad_norm_`; None for the norm only.
    max_value : float, 0-d tensor or None
        Clip each element into ``[-max_value, max_value]`` before; None for not.
    norm_type : float
        The order of the norm, greater than 0, or ``math.inf``.
    nonfinite : {"propagate", "error", "zero"}
        As for `clip_grad_norm_`.
    per_group : bool
        Clip each param group by the norm of its own.

    Returns
    -------
    Clipping
        With the norm, the coefficient and whether it clipped, of the last step; ``remove()`` ends it.

    Raises
    ------
    TypeError
        If ``optimizer`` is none, or an argument not a number.
    ValueError
        If a threshold is negative or NaN, ``norm_type`` not greater than 0, or ``nonfinite`` an unknown name.

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
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer is a {type(optimizer).__name__}, expected a torch.optim.Optimizer; pass the optimizer itself, "
            "or call clip_grad_norm_() before its step"
        )
    order = _checks.order(norm_type, "norm_type")
    rule = FinishingRule(max_norm, order, nonfinite, 1.0, 0.0)
    return Clipping(optimizer, rule, _checks.threshold(max_value, "max_value"), per_group)


class Clipping:
    """What `attach` returns: the clipping of an optimizer, until it is removed.

    Attributes
    ----------
    norm : Tensor or None
        The norm before the last step's clipping, 0-d and on the gradients' device; with ``per_group``, one for each
        group. None before the first step.
    coefficient : Tensor or None
        What the gradients were multiplied by: 1 where nothing was clipped.
    clipped : Tensor or None
        Whether they were clipped: boolean.
    """

    def __init__(self, optimizer: Optimizer, rule: FinishingRule, max_value: Scalar | None, per_group: bool) -> None:
        self.norm: Tensor | None = None
        self.coefficient: Tensor | None = None
        self.clipped: Tensor | None = None
        self._rule, self._max_value, self._per_group = rule, max_value, per_group
        self._fold = Fold(optimizer)
        self._limit = _ordinary_limit(rule) if max_value is None else None
        self._hooks = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(lambda *_: self._fold.end()),
        ]

    def remove(self) -> None:
        """Clip no longer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _before(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._fold.end()  # in case that the step before raised
        given = kwargs.get("closure", args[1] if len(args) > 1 else None)  # before it comes the optimizer
        if given is None:
            self._clip(optimizer, fold=True)
            return None

        def closure() -> Any:
            loss = given()
            self._clip(optimizer, fold=False)  # the step may evaluate it several times and use the gradients itself
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": closure}
        return (*args[:1], closure, *args[2:]), kwargs

    @torch.no_grad()
    def _clip(self, optimizer: Optimizer, fold: bool) -> None:
        scopes = [list(group["params"]) for group in optimizer.param_groups]
        if self._per_group:
            found = [self._clip_scope(scope, fold and len(scopes) == 1) for scope in scopes]
            self.norm, self.coefficient, self.clipped = (torch.stack(parts) for parts in zip(*found, strict=True))
        else:
            whole = [p for scope in scopes for p in scope]
            self.norm, self.coefficient, self.clipped = self._clip_scope(whole, fold)

    def _clip_scope(self, params: list[Tensor], fold: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Clip gradients that the step is yet to divide by a loss scale, mostly 1: they stay scaled."""
        unit = self._fold.pending()
        if self._limit is not None and _is_one(unit):
            told = self._clip_ordinary(params, self._limit, fold)
            if told is not None:
                return told
        leaves = gradients(params, "optimizer's parameters")
        if self._max_value is not None:
            high = self._max_value * unit
            clamp_leaves_(leaves, -high, high)
        rule = self._rule_for(unit)
        norm, c = decide(leaves.finishing(rule), rule)
        shown = as_tensor(norm) if _is_one(unit) else as_tensor(norm) / unit
        if c is None:
            return shown, torch.ones_like(shown), torch.zeros_like(shown, dtype=torch.bool)
        factor = foldable(leaves, c) if fold else None
        if factor is None or not self._fold.begin(factor):
            leaves.scale_([c] * len(leaves.arrays), "clip_by_global_norm")
        return shown, *_told(c, shown)

    def _clip_ordinary(self, params: list[Tensor], limit: float, fold: bool) -> tuple[Tensor, Tensor, Tensor] | None:
        """Clip by a number in few calls; or return None and leave the gradients, if anything is unusual."""
        grads = grads_of(params)
        if not grads or not grads[0].is_cpu:
            return None
        sizes = sizes_of(grads)
        norm = norm_of(grads, sizes)
        if norm is None:
            return None
        clipped = norm > limit
        factor = limit / norm if clipped else 1.0
        folded = clipped and fold and factor >= LEAST and self._fold.begin(factor)
        if clipped and not folded and not multiply_plain_(grads, sizes, factor):
            return None
        told, used = (torch.scalar_tensor(x, dtype=torch.float32, device="cpu") for x in (norm, factor))
        return told, used, torch.scalar_tensor(clipped, dtype=torch.bool, device="cpu")

    def _rule_for(self, unit: Scalar) -> FinishingRule:
        """Return the rule for gradients that are too large by a loss scale, whose overflows the scaler deals with."""
        if _is_one(unit):
            return self._rule
        limit = None if self._rule.max_norm is None else self._rule.max_norm * unit
        return FinishingRule(limit, self._rule.ord, "propagate", 1.0, 0.0)


def _ordinary_limit(rule: FinishingRule) -> float | None:
    """Return the threshold of a rule that asks for nothing unusual."""
    limit = math.inf if rule.max_norm is None else rule.max_norm
    usual = isinstance(limit, float) and rule.ord == 2 and rule.nonfinite == "propagate"
    return limit if usual else None


def _is_one(unit: Scalar) -> bool:
    return isinstance(unit, float) and unit == 1


def _told(c: Coefficient, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the coefficient as one number, and whether anything was clipped."""
    if not isinstance(c.factor, Tensor):
        number = torch.scalar_tensor(float(c.factor / c.divisor), dtype=like.dtype, device="cpu")
        return number, torch.scalar_tensor(bool(c.changed), dtype=torch.bool, device="cpu")
    return (c.factor / c.divisor).to(like), c.changed.to(like.device)
