"""Policies as arguments of transformations: checked, and made such that compiled functions can be kept for them."""

from typing import Any

from gradclip._words import kind
from gradclip.policies._as_policy import is_policy
from gradclip.policies._policy import AnyPolicy


class Held:
    """A policy that has no hash, such as one that holds arrays: equal to itself alone."""

    def __init__(self, policy: AnyPolicy) -> None:
        self._policy = policy
        self.init, self.update = policy.init, policy.update
        self.skips, self.per_leaf = policy.skips, policy.per_leaf

    def __repr__(self) -> str:
        return repr(self._policy)


def hashable(policy: AnyPolicy) -> AnyPolicy:
    """Return the policy, or a wrapper that has a hash: compiled functions are kept by it."""
    found: Any = policy
    try:
        hash(found)
    except TypeError:
        found = Held(policy)
    chosen: AnyPolicy = found
    return chosen


def clipping(max_norm: object) -> AnyPolicy | None:
    """Return the policy if ``max_norm`` is one, else None.

    Raises
    ------
    TypeError
        If it is the class of one.
    ValueError
        If it skips steps.
    """
    if not is_policy(max_norm):
        return None
    if max_norm.skips:
        raise ValueError(
            f"max_norm={max_norm!r} skips steps, expected a policy that clips: zeros from one part of a chain would "
            "still move momentum and apply weight decay in another; wrap the optimizer: skip_steps(optimizer, policy)"
        )
    return hashable(max_norm)


def skipping(policy: object) -> AnyPolicy:
    """Return a policy that skips steps.

    Raises
    ------
    TypeError
        If it is no policy.
    ValueError
        If it does not skip.
    """
    if not is_policy(policy, "policy"):
        raise TypeError(
            f"policy is {kind(policy)}, expected a policy that skips steps; pass one of gradclip.policies, such as "
            "SkipStep(threshold=10.0) or SkipStep(sigma=6)"
        )
    if not policy.skips:
        raise ValueError(
            f"policy={policy!r} clips and does not skip, expected one that skips steps, such as SkipStep(sigma=6); to "
            "clip, put clip_by_global_norm(policy) in front of the optimizer: optax.chain(clip_by_global_norm(policy), "
            "optimizer)"
        )
    return hashable(policy)
