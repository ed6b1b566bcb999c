"""Decisions with a threshold that a policy chooses: partial norm, norm, threshold, coefficient."""

import math
from collections.abc import Mapping
from typing import Any

from gradclip import _namespace as ns
from gradclip._coefficient import Coefficient, at_least_zero, coefficient
from gradclip._decision import Decision, Rule, decide_by_floats, unscaled
from gradclip._nonfinite import refuse_nonfinite
from gradclip._partial import NormPartial, beside, concat, merge_elements, remainder
from gradclip._powers import root, root_of_float
from gradclip._tree import Leaves
from gradclip._types import AnyArray, AnyScalar
from gradclip.policies._as_policy import restored
from gradclip.policies._policy import AnyPolicy


def decide_by_policy(
    leaves: Leaves, policy: AnyPolicy, state: Any, rule: Rule, *, unscale: bool = True
) -> tuple[Decision, Any]:
    """Return the decision for leaves, and the next state of a policy; nothing is written.

    Parameters
    ----------
    leaves : Leaves
        The leaves, of any adapter.
    policy : Policy
        Chooses the threshold.
    state : NamedTuple, dict or None
        The policy's state, or what `saved` returned of one; None before the first step. On a host it has Python floats,
        else arrays.
    rule : Rule
        The other arguments of the call. Its ``max_norm`` is not used.
    unscale : bool
        Whether the gradients are divided by the loss scale. The norm and the threshold always refer to unscaled
        gradients.

    Raises
    ------
    NonFiniteError
        If a gradient is NaN or inf, and ``rule`` says so.
    ValueError
        If the policy has a threshold for each leaf, and the number of leaves is not that of the state.
    """
    decide = _decide_each if policy.per_leaf and (leaves.arrays or leaves.is_spread) else _decide_all
    decision, state = decide(leaves, policy, state, rule, unscale)
    if rule.nonfinite == "error":
        refuse_nonfinite(leaves, decision.finite, rule.ord)
    return decision, state


def coefficients_of(leaves: Leaves, decision: Decision) -> list[Coefficient]:
    """Return the coefficient of each leaf."""
    c = decision.coefficient
    if isinstance(c.factor, float) or not c.factor.ndim:
        return [c] * len(leaves.arrays)
    return c.parts(floats=leaves.ops.readable)


def _decide_all(leaves: Leaves, policy: AnyPolicy, state: Any, rule: Rule, unscale: bool) -> tuple[Decision, Any]:
    """Return the decision by the norm of all leaves laid end to end."""
    if policy.per_leaf:  # there are no leaves
        return leaves.decide(rule), state
    numbers = rule.floats()
    found = None if numbers is None else leaves.ops.read(leaves.arrays, rule.ord)
    if numbers is None or found is None:
        return decide_partial_by_policy(leaves.partial(rule.ord), policy, state, rule, unscale=unscale)
    (scale, total, as_array), (_, eps, loss_scale) = found, numbers
    norm = scale / loss_scale * root_of_float(total, rule.ord)
    max_norm, state = policy.update(_started(policy, state, 0.0), norm)
    max_norm = at_least_zero(float(max_norm))
    skipped = policy.skips and not (norm <= max_norm and math.isfinite(norm))
    limit = math.inf if policy.skips else max_norm
    limits = (limit, eps, loss_scale) if unscale else (limit * loss_scale, eps * loss_scale, 1.0)
    _, c = decide_by_floats(scale, total, rule.ord, limits, zero=rule.zero)
    return Decision(as_array(norm), c, total, max_norm, skipped), state


def _decide_each(leaves: Leaves, policy: AnyPolicy, state: Any, rule: Rule, unscale: bool) -> tuple[Decision, Any]:
    """Return the decision by the norm of each leaf.

    If other processes hold leaves too, the policy gets one more norm, after those of these leaves: the norm of all
    other leaves together.
    """
    n, spread = len(leaves.arrays), leaves.is_spread
    of_all = leaves.partial(rule.ord) if spread else None  # first: all processes raise errors in it, or none does
    batch = leaves.partials(rule.ord)
    whole = merge_elements(batch) if of_all is None else of_all
    _check_number(policy, state, n, more=int(spread))
    norms = concat(batch, remainder(whole, batch), axis=0) if spread else batch
    decision, state = decide_partial_by_policy(norms, policy, state, rule, unscale=unscale)
    c, max_norm, skipped = decision.coefficient, decision.max_norm, decision.skipped
    if spread:
        c, max_norm = c[:n], max_norm if max_norm is None or isinstance(max_norm, float) else max_norm[:n]
    xp = ns.namespace([whole.total])
    skipped = xp.any(skipped) if policy.skips else False
    if rule.zero:  # one gradient with NaN or inf loses the step, as everywhere
        c = c.zero_all(~xp.isfinite(whole.total))
    return Decision(unscaled(whole, rule.loss_scale).norm(), c, whole.total, max_norm, skipped), state


def decide_partial_by_policy(
    partial: NormPartial, policy: AnyPolicy, state: Any, rule: Rule, *, unscale: bool = True
) -> tuple[Decision, Any]:
    """Return the decision for one partial norm, or for each of a batch; no Python branch depends on a value."""
    xp = ns.namespace([partial.total])
    found = unscaled(partial, rule.loss_scale)
    norm = ns.as_array(found.scale * root(xp, found.total, found.ord))
    norm = norm.detach() if ns.is_recorded(norm) else norm  # else a state would keep the graphs of all steps before
    max_norm, state = policy.update(_started(policy, state, norm), norm)
    skipped: AnyArray = ~((norm <= max_norm) & xp.isfinite(norm)) if policy.skips else False
    limit, eps, loss_scale = None if policy.skips else max_norm, rule.eps, rule.loss_scale
    if not unscale:
        limit = None if limit is None else limit * beside(partial, loss_scale)
        eps, loss_scale = eps * loss_scale, 1.0
    c = coefficient(partial, limit, eps=eps, loss_scale=loss_scale, nonfinite=rule.nonfinite)
    return Decision(found.norm(), c, partial.total, max_norm, skipped), state


def _started(policy: AnyPolicy, state: Any, like: AnyScalar) -> Any:
    """Return the state for norms like ``like``: the first one, one from a dict, or the given one."""
    if state is None:
        return policy.init(like)
    return restored(policy, like, state) if isinstance(state, Mapping) else state


def _check_number(policy: AnyPolicy, state: Any, n: int, more: int = 0) -> None:
    """Check that a state is for ``n`` leaves, and for ``more`` norms that are of no leaf."""
    for value in () if state is None or isinstance(state, Mapping) else state:
        if value.ndim and value.shape[0] != n + more:
            raise ValueError(
                f"there are {n} gradients, expected {value.shape[0] - more} as in the steps before, because "
                f"{type(policy).__name__} has a threshold for each; pass zeros for those that are missing in this step"
            )
