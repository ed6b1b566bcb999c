"""One clipping of an optimizer's gradients: all decisions are made before the first write."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradclip._by_policy import coefficients_of, decide_by_policy, decide_partial_by_policy
from gradclip._by_value import check_real, clamp_leaves_, ordered
from gradclip._decision import Decision, Rule, decide_by_arrays, unscaled_norm
from gradclip._global import decide
from gradclip._nonfinite import refuse_nonfinite
from gradclip._partial import NormPartial
from gradclip._types import AnyScalar
from gradclip.backends.torch._leaves import TorchLeaves, ops_of
from gradclip.policies._policy import AnyPolicy


class Told(NamedTuple):
    """The results of one step's clipping. Tensors are 0-d, or of shape (number of scopes,).

    Parameters
    ----------
    norm : Tensor
        The unscaled norm before clipping: float64 or float32.
    coefficient : Tensor
        What the gradients were multiplied by: 1 if they were not clipped, 0 if they were made zero. The smallest, if
        each gradient has its own.
    clipped : Tensor
        Whether they were clipped: boolean.
    threshold : float or Tensor
        The threshold of the norm, inf if there is none; one for each gradient, if each has its own.
    skipped : bool or Tensor
        Whether the step is skipped.
    """

    norm: Tensor
    coefficient: Tensor
    clipped: Tensor
    threshold: AnyScalar = math.inf
    skipped: bool | Tensor = False


class Scope(NamedTuple):
    """Gradients that are clipped by their common norm.

    Parameters
    ----------
    leaves : TorchLeaves
        The gradients.
    max_norm : float, 0-d tensor or None
        The threshold for the unscaled norm; not used if there is a policy.
    policy : Policy or None
        Chooses the threshold.
    state : object
        The policy's state.
    """

    leaves: TorchLeaves
    max_norm: AnyScalar | None = None
    policy: AnyPolicy | None = None
    state: Any = None


def clip_scopes_(
    scopes: Sequence[Scope], rule: Rule, max_value: AnyScalar | None, loss_scale: AnyScalar
) -> tuple[list[Told], list[Any]]:
    """Clip the gradients of each scope in place; all are checked before the first is written.

    Parameters
    ----------
    scopes : sequence of Scope
        Their gradients are multiplied by ``loss_scale``. They are not divided by it.
    rule : Rule
        The order of the norm, eps, and what to do with NaN and inf. Its threshold is not used.
    max_value : float, 0-d tensor or None
        The bound of each unscaled element.
    loss_scale : float or 0-d tensor
        The norms and thresholds are those of gradients divided by it.

    Returns
    -------
    told : list of Told
        The results, one for each scope.
    states : list of object
        The policies' next states.
    """
    scopes = _agreed(scopes, rule, max_value, loss_scale)
    whole = scopes[0].leaves if len(scopes) == 1 else _joined([scope.leaves for scope in scopes])
    raw: list[Decision | None] = [None] * len(scopes)
    bound = None if max_value is None else max_value * loss_scale
    measured = scopes
    for scope in scopes:
        scope.leaves.check_targets(bounded=bound is not None)
    if bound is not None:
        check_real(whole)
        if rule.nonfinite != "propagate":  # clamping makes inf finite, so look for non-finite elements before
            raw = [decide(scope.leaves, Rule(None, 2.0, rule.nonfinite)) for scope in scopes]
        if any(map(_may_refuse, scopes)):
            measured = [scope._replace(leaves=_clamped(scope.leaves, bound)) for scope in scopes]
        else:  # no error is left that could follow the first write
            clamp_leaves_(whole, -bound, bound)
    decided = [_decide(scope, rule, loss_scale, seen) for scope, seen in zip(measured, raw, strict=True)]
    if bound is not None and measured is not scopes:
        clamp_leaves_(whole, -bound, bound)
    each = [c for scope, (d, _) in zip(scopes, decided, strict=True) for c in coefficients_of(scope.leaves, d)]
    whole.scale_(each, "clip_by_global_norm")
    told = [_told(decision, scope.max_norm) for scope, (decision, _) in zip(scopes, decided, strict=True)]
    return told, [state for _, state in decided]


def _agreed(scopes: Sequence[Scope], rule: Rule, max_value: AnyScalar | None, loss_scale: AnyScalar) -> Sequence[Scope]:
    """Return the scopes with the terms on which ranks must agree: also how many there are, and in what order."""
    if not any(scope.leaves.is_spread for scope in scopes):
        return scopes
    unscaled = Rule(None, rule.ord, rule.nonfinite, loss_scale, rule.eps)
    parts = [f"{i} of {len(scopes)}" for i in range(1, len(scopes) + 1)]
    return [
        scope._replace(leaves=scope.leaves.on_terms(unscaled, max_value=max_value, policy=scope.policy, part=part))
        for scope, part in zip(scopes, parts, strict=True)
    ]


def _may_refuse(scope: Scope) -> bool:
    """Whether a decision may raise an error that depends on the norm: by a policy, or because ranks differ."""
    return scope.policy is not None or scope.leaves.is_spread


def _clamped(leaves: TorchLeaves, bound: AnyScalar) -> TorchLeaves:
    """Return copies of leaves with their elements limited, to measure them before the leaves are written."""
    return replace(leaves, arrays=leaves.ops.clamp(leaves.arrays, *ordered(-bound, bound)))


def together(told: Sequence[Told]) -> Told:
    """Return the results of several scopes as tensors of shape (len(told),) on the first scope's device."""
    home = told[0].norm.device
    dtype = torch.float64 if any(x.norm.dtype == torch.float64 for x in told) else torch.float32
    norm, coefficient = (torch.stack([getattr(x, n).to(home, dtype) for x in told]) for n in ("norm", "coefficient"))
    clipped = torch.stack([x.clipped.to(home) for x in told])
    threshold = torch.cat([as_tensor(x.threshold, norm).reshape(-1) for x in told])
    return Told(norm, coefficient, clipped, threshold, any_of([x.skipped for x in told]))


def any_of(flags: Sequence[bool | Tensor]) -> bool | Tensor:
    """Return whether any flag is True, as a bool if all are, else as a 0-d tensor on the device of the first."""
    if len(flags) == 1:
        return flags[0]
    if all(isinstance(flag, bool) for flag in flags):
        return any(flags)
    home = next(flag.device for flag in flags if isinstance(flag, Tensor))
    return torch.stack([torch.as_tensor(flag, device=home).any() for flag in flags]).any()


def _joined(scopes: Sequence[TorchLeaves]) -> TorchLeaves:
    """Return the leaves of several scopes as one, to write them together."""
    arrays = [x for leaves in scopes for x in leaves.arrays]
    after = [action for leaves in scopes for action in leaves.after]

    def paths() -> list[str]:
        return [path for leaves in scopes for path in leaves.array_paths()]

    return TorchLeaves(arrays, ops_of(arrays), range(len(arrays)), list, paths, after)


def _decide(scope: Scope, rule: Rule, loss_scale: AnyScalar, raw: Decision | None) -> tuple[Decision, Any]:
    """Return the decision for a scope. ``raw`` is the decision before elements were clipped, or None."""
    leaves, policy = scope.leaves, scope.policy
    unscaled = isinstance(loss_scale, float) and loss_scale == 1
    if policy is None:
        limit = None if scope.max_norm is None else scope.max_norm * loss_scale
        rule = Rule(limit, rule.ord, rule.nonfinite, 1.0, rule.eps * loss_scale)
        if raw is None and (unscaled or not leaves.arrays):
            return decide(leaves, rule), None
        partial = _poisoned(leaves.partial_for(rule), raw)
        found = decide_by_arrays(partial, rule)
        decision, state = Decision(unscaled_norm(partial, loss_scale), found.coefficient, found.total), None
    else:
        rule = Rule(None, rule.ord, rule.nonfinite, loss_scale, rule.eps)
        if raw is None or policy.per_leaf:
            return decide_by_policy(leaves, policy, scope.state, rule, unscale=False)
        partial = _poisoned(leaves.partial(rule.ord), raw)
        decision, state = decide_partial_by_policy(partial, policy, scope.state, rule, unscale=False)
    if rule.nonfinite == "error":
        refuse_nonfinite(leaves, decision.finite, rule.ord)
    return decision, state


def _poisoned(partial: NormPartial, raw: Decision | None) -> NormPartial:
    """Return a partial norm that is NaN or inf if the gradients were before their elements were clipped."""
    if raw is None:
        return partial
    seen = torch.as_tensor(raw.total, dtype=partial.total.dtype, device=partial.total.device)
    total = torch.where(torch.isfinite(seen), partial.total, seen)
    return NormPartial(partial.scale, total, partial.ord, partial.dtype)


def _told(decision: Decision, max_norm: AnyScalar | None) -> Told:
    norm, c = decision.norm, decision.coefficient
    number = as_tensor(c.number, norm)
    least = number.amin() if number.numel() else torch.ones_like(norm)  # no gradient has a coefficient of its own
    threshold = max_norm if decision.max_norm is None else decision.max_norm
    clipped = as_tensor(decision.clipped, norm, torch.bool)
    return Told(norm, least, clipped, math.inf if threshold is None else threshold, decision.skipped)


def as_tensor(value: Any, norm: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a number or tensor as a tensor beside a norm, of its dtype or another."""
    dtype = norm.dtype if dtype is None else dtype
    if isinstance(value, float | bool):
        made = torch.scalar_tensor(value, dtype=torch.bool if isinstance(value, bool) else torch.float64, device="cpu")
        return made.to(norm.device, dtype)
    return torch.as_tensor(value).to(norm.device, dtype)
