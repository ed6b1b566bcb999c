"""One step of each transformation, compiled once for each structure of updates."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from gradclip._adaptive import UnitRule, clip_units
from gradclip._by_norm import clip_each, rms_limit
from gradclip._coefficient import Coefficient
from gradclip._global import Rule, clip_leaves
from gradclip._partial import NormPartial, merge_elements
from gradclip._tree import Leaves
from gradclip._types import Array, Axes, Nonfinite, Scalar
from gradclip.backends.jax._adaptive import matched
from gradclip.backends.jax._eager import compiled
from gradclip.backends.jax._tree import flatten, scalar
from gradclip.backends.optax._state import ClipState, following


@compiled("nonfinite", "axes")
def by_global_norm(
    updates: Any, state: ClipState, max_norm: Scalar | None, *, nonfinite: Nonfinite, axes: tuple[str, ...]
) -> tuple[Any, ClipState]:
    """Return the clipped updates and the next state."""
    leaves = flatten(updates, axes=axes)
    limit: Scalar = scalar(leaves, max_norm, math.inf)
    clipped, norm = clip_leaves(leaves, Rule(limit, 2.0, nonfinite, 1.0, 0.0))
    norm = jnp.asarray(norm)
    inside = norm <= limit
    coefficient = jnp.where(inside, 1.0, limit / jnp.where(inside, 1.0, norm))
    if nonfinite == "zero":
        coefficient = jnp.where(jnp.isfinite(norm), coefficient, 0.0)
    return clipped, following(state, norm, coefficient, ~inside)


@compiled()
def by_block_rms(updates: Any, state: ClipState, threshold: Scalar | None) -> tuple[Any, ClipState]:
    """Return the clipped updates and the next state."""
    leaves = flatten(updates)
    if not leaves.arrays:
        return updates, _unclipped(state)
    limits = rms_limit(scalar(leaves, threshold, None))
    seen: list[tuple[NormPartial, Scalar | None]] = []

    def limit(leaves: Leaves, batch: NormPartial) -> Scalar | None:
        seen.append((batch, limits(leaves, batch)))
        return seen[0][1]

    clipped = clip_each(leaves, limit, 2.0)
    batch, most = seen[0]
    norms = batch.norm()
    inside = norms <= (jnp.inf if most is None else most)
    ratios = jnp.where(inside, 1.0, (1.0 if most is None else most) / jnp.where(inside, 1.0, norms))
    return clipped, following(state, merge_elements(batch).norm(), jnp.min(ratios), ~jnp.all(inside))


@compiled("axis")
def adaptive(
    updates: Any, state: ClipState, params: Any, clipping: Scalar | None, eps: Scalar, *, axis: int | Axes | None
) -> tuple[Any, ClipState]:
    """Return the clipped updates and the next state."""
    leaves, weights = matched(updates, params)
    if not leaves.arrays:
        return updates, _unclipped(state)
    rule = _Watched(scalar(leaves, clipping, math.inf), scalar(leaves, eps, None), axis)
    clipped = clip_units(leaves, weights, rule)
    norm = leaves.ops.partial(leaves.arrays, 2.0).norm()
    ratios = [jnp.min(jnp.where(c.changed, c.factor / c.divisor, 1.0), initial=1.0) for c in rule.found]
    changed = [jnp.any(c.changed) for c in rule.found]
    return clipped, following(state, norm, jnp.min(jnp.stack(ratios)), jnp.any(jnp.stack(changed)))


class _Watched(UnitRule):
    """The rule of adaptive clipping, which keeps the coefficients that it found."""

    def coefficients(self, leaves: Leaves, weights: Sequence[Array]) -> list[Coefficient]:
        """Return the coefficients of each leaf's units."""
        self.found = super().coefficients(leaves, weights)
        return self.found


def _unclipped(state: ClipState) -> ClipState:
    return following(state, jnp.zeros(()), jnp.ones(()), jnp.asarray(False))
