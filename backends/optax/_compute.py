"""One step of each transformation, compiled once for each structure of updates."""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from gradclip._adaptive import UnitRule
from gradclip._by_norm import decide_each
from gradclip._by_policy import coefficients_of, decide_by_policy
from gradclip._coefficient import Coefficient
from gradclip._decision import Decision, Rule
from gradclip._global import clip_leaves
from gradclip._partial import NormPartial, merge_elements
from gradclip._tree import Leaves
from gradclip._types import AnyArray, AnyScalar, Axes, Nonfinite
from gradclip.backends.jax._adaptive import matched
from gradclip.backends.jax._by_norm import whole_numels
from gradclip.backends.jax._eager import compiled
from gradclip.backends.jax._ops import JaxOps
from gradclip.backends.jax._tree import alike, flatten, in_order, scalar
from gradclip.backends.optax._state import (
    ClipState,
    PolicyState,
    SkipState,
    check_policy_state,
    counted,
    following,
    of_dtype,
    of_the_types,
)
from gradclip.policies._policy import AnyPolicy


@compiled("nonfinite", "axes")
def by_global_norm(
    updates: Any, state: ClipState, max_norm: AnyScalar | None, *, nonfinite: Nonfinite, axes: tuple[str, ...]
) -> tuple[Any, ClipState]:
    """Return the clipped updates and the next state."""
    leaves = flatten(updates, "updates", axes=axes)
    clipped, decision = clip_leaves(leaves, Rule(scalar(leaves, max_norm, None), 2.0, nonfinite))
    return clipped, _told(state, decision.norm, [decision.coefficient] if leaves.arrays else [])


@compiled("policy", "nonfinite", "axes")
def by_policy(
    updates: Any, state: PolicyState, *, policy: AnyPolicy, nonfinite: Nonfinite, axes: tuple[str, ...]
) -> tuple[Any, PolicyState]:
    """Return the updates clipped by the threshold that a policy chooses, and the next state."""
    leaves = flatten(updates, "updates", axes=axes)
    decision, max_norm, remembered = _decided(leaves, state, policy, nonfinite)
    found = coefficients_of(leaves, decision)
    told = _told(ClipState(*state[:4]), decision.norm, [decision.coefficient] if found else [])
    after = PolicyState(*told, max_norm=max_norm, policy=remembered)
    return leaves.scale(found) if found else updates, of_the_types(state, after)


@compiled("policy", "axes")
def with_skip(updates: Any, state: SkipState, *, policy: AnyPolicy, axes: tuple[str, ...]) -> tuple[Any, SkipState]:
    """Return the updates, or zeros if the step is skipped, and the next state but for the inner one."""
    leaves = flatten(updates, "updates", axes=axes)
    decision, max_norm, remembered = _decided(leaves, state, policy, "propagate")
    skipped = jnp.asarray(decision.skipped)
    kept = [jnp.where(skipped, jnp.zeros_like(x), x) for x in leaves.arrays]
    after = SkipState(
        norm=jnp.asarray(decision.norm),
        max_norm=max_norm,
        last_skipped=skipped,
        skipped=counted(state.skipped, skipped),
        step=jnp.asarray(optax.safe_increment(state.step)),
        policy=remembered,
        inner_state=None,
    )
    return leaves.restore(kept), of_the_types(state, after)


def _decided(
    leaves: Leaves, state: PolicyState | SkipState, policy: AnyPolicy, nonfinite: Nonfinite
) -> tuple[Decision, AnyArray, Any]:
    """Return the decision, the threshold, and what the policy remembers after it, in the dtype of norms."""
    dtype = leaves.ops.dtype if isinstance(leaves.ops, JaxOps) else state.norm.dtype
    norms = jnp.zeros((len(leaves.arrays),) if policy.per_leaf else (), dtype=dtype)
    check_policy_state(policy, state.policy, norms)
    before = of_dtype(state.policy, dtype)
    if leaves.arrays:
        decision, after = decide_by_policy(leaves, policy, before, Rule(None, 2.0, nonfinite))
        return decision, jnp.asarray(decision.max_norm), after
    nothing = leaves.decide(Rule(None))
    if policy.per_leaf:
        return nothing, norms, before
    return nothing, *policy.update(before, norms)


@compiled("axes")
def by_block_rms(
    updates: Any, state: ClipState, threshold: AnyScalar | None, *, axes: tuple[str, ...]
) -> tuple[Any, ClipState]:
    """Return the clipped updates and the next state."""
    leaves = flatten(updates, "updates", axes=axes)
    if not leaves.arrays:
        return updates, _told(state, 0.0, [])
    groups, limit = alike(leaves), scalar(leaves, threshold, None)
    decided = [decide_each(some, limit, 2.0, whole_numels(some, axes)) for _, some in groups]
    norm = reduce(NormPartial.merge, [merge_elements(batch) for batch, _ in decided]).norm()
    found = in_order(groups, [c.parts() for _, c in decided])
    return leaves.scale(found), _told(state, norm, [c for _, c in decided])


@compiled("axis", "over")
def adaptive(
    updates: Any,
    state: ClipState,
    params: Any,
    clipping: AnyScalar | None,
    eps: AnyScalar,
    *,
    axis: int | Axes | None,
    over: tuple[str, ...],
) -> tuple[Any, ClipState]:
    """Return the clipped updates and the next state."""
    leaves, weights = matched(updates, params, over)
    rule = UnitRule(scalar(leaves, clipping, math.inf), scalar(leaves, eps, None), axis)
    found = rule.coefficients(leaves, weights)
    return leaves.scale(found), _told(state, leaves.partial(2.0).norm(), found)


def _told(state: ClipState, norm: AnyScalar, coefficients: Sequence[Coefficient]) -> ClipState:
    """Return the state after a step that had this norm and these coefficients."""
    changed = [jnp.any(c.changed) for c in coefficients]
    clipped = jnp.any(jnp.stack(changed)) if changed else jnp.asarray(False)
    return following(state, jnp.asarray(norm), _smallest(coefficients), clipped)


def _smallest(coefficients: Sequence[Coefficient]) -> AnyArray:
    """Return the smallest coefficient as one number: 1 if there is none, NaN if one is NaN.

    It may be subnormal, because leaves are multiplied in two steps. On a CPU, XLA flushes subnormal results to zero. So
    a subnormal number is made from its bits, which count how often it contains the smallest number of its dtype.
    """
    if not coefficients:
        return jnp.ones(())
    dtype = coefficients[0].factor.dtype
    kind = np.finfo(dtype)
    up = 2 * kind.bits  # multiplied by 2 ** up, all positive numbers of the dtype are normal
    raised = jnp.min(jnp.stack([_least(c, 2.0**up) for c in coefficients]))
    count = jnp.round(jnp.minimum(raised, kind.tiny * 2.0**up) * 2.0 ** (kind.nmant - kind.minexp - up))
    subnormal = lax.bitcast_convert_type(count.astype(f"int{kind.bits}"), dtype)
    return jnp.where(raised < kind.tiny * 2.0**up, subnormal, raised / 2.0**up)


def _least(c: Coefficient, up: float) -> AnyArray:
    """Return the smallest number of a coefficient, multiplied by ``up``."""
    first, second = c.multipliers
    number = jnp.minimum(first, 1.0) * up * second  # where the second is 0, the first may be too large for this
    return jnp.min(number if c.zeroed is None else jnp.where(c.zeroed, 0.0, number), initial=up)
