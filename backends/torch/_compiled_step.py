"""Under ``torch.compile``, the clipping of an optimizer's gradients is one custom operation of the graph.

A policy is known to the graph by its name in a table, and its state by tensors that the operation writes to, so that a
captured CUDA graph goes on from the state that it left.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradclip import _checks
from gradclip._decision import Rule
from gradclip._types import AnyScalar
from gradclip.backends.torch._compiled import as_scalar, norm_like, traced_leaves
from gradclip.backends.torch._step import Scope, Told, as_tensor, clip_scopes_, together
from gradclip.policies._as_policy import restored
from gradclip.policies._policy import AnyPolicy


class _Listed(NamedTuple):
    """A policy, and the names of its state's fields."""

    policy: AnyPolicy
    fields: tuple[str, ...]


_table: list[_Listed] = []
"""The policies that graphs may name, each once. A graph names one by its place here."""


class TracedPolicy(NamedTuple):
    """What a graph knows of a policy. It is made of strings and a bool, so that another policy compiles another graph.

    Parameters
    ----------
    name : str
        Its place in the table of policies.
    fields : tuple of str
        The fields of its state.
    skips : bool
        Whether it skips steps.
    """

    name: str
    fields: tuple[str, ...]
    skips: bool

    @classmethod
    def of(cls, policy: AnyPolicy) -> "TracedPolicy":
        """Return what a graph has to know of a policy; the table keeps it from now on."""
        policies = [listed.policy for listed in _table]
        at = policies.index(policy) if policy in policies else len(policies)
        if at == len(policies):
            _table.append(_Listed(policy, type(policy.init(0.0))._fields))
        return cls(str(at), _table[at].fields, policy.skips)


class TracedPart(NamedTuple):
    """Gradients that are clipped by one norm.

    Parameters
    ----------
    grads : list of Tensor
        The gradients, which are not scaled.
    max_norm : float, 0-d tensor or None
        The threshold; None if there is none, or if a policy chooses it.
    state : dict of Tensor or None
        The state of the policy, from `traced_state`; None if there is no policy.
    """

    grads: list[Tensor]
    max_norm: AnyScalar | None
    state: dict[str, Tensor] | None


def clip_parts_compiled_(
    parts: Sequence[TracedPart],
    policy: TracedPolicy | None,
    max_value: AnyScalar | None,
    rule: Rule,
    *,
    per_group: bool,
) -> Told:
    """Clip gradients as one operation of the graph that is being compiled; it writes to the states of the parts.

    Parameters
    ----------
    parts : sequence of TracedPart
        The gradients, by the norms that they are clipped by.
    policy : TracedPolicy or None
        The policy of those parts that have a state.
    max_value : float, 0-d tensor or None
        The bound of each element.
    rule : Rule
        The order of the norm, eps, and what to do with NaN and inf.
    per_group : bool
        Whether results are those of each part; else they are those of the first.
    """
    sizes = [len(part.grads) for part in parts]
    grads = [g for part in parts for g in part.grads]
    if not grads:
        norm = torch.zeros((len(sizes),) if per_group else ())
        return Told(norm, torch.ones_like(norm), torch.zeros_like(norm, dtype=torch.bool))
    limits = [None if part.max_norm is None else as_scalar(part.max_norm) for part in parts]
    by_policy = [part.state is not None for part in parts]
    name = "" if policy is None else policy.name
    states = [x for part in parts if part.state is not None for x in part.state.values()]
    bound = None if max_value is None else as_scalar(max_value)
    norm, coefficient, clipped, threshold = torch.ops.gradclip.clip_step_(
        grads, sizes, limits, name, by_policy, states, bound, as_scalar(rule.eps), rule.ord, rule.nonfinite, per_group
    )
    first = parts[0]
    if not per_group and first.state is None:
        threshold = math.inf if first.max_norm is None else first.max_norm
    return Told(norm, coefficient, clipped, threshold)


def traced_state(policy: TracedPolicy, grads: list[Tensor], state: Any) -> dict[str, Tensor]:
    """Return the state of a policy as tensors: those of a compiled step before, or new ones.

    Parameters
    ----------
    policy : TracedPolicy
        The policy.
    grads : list of Tensor
        The gradients whose norm the policy sees.
    state : NamedTuple, dict or None
        The state in any form; None before the first step.
    """
    if isinstance(state, TracedState):
        return state
    if state is None:
        given = []
    else:
        values = [state[name] if isinstance(state, Mapping) else getattr(state, name) for name in policy.fields]
        given = [x if isinstance(x, Tensor) else _as_tensor(x) for x in values]
    made = torch.ops.gradclip.policy_state(grads, policy.name, given)
    return TracedState(zip(policy.fields, made, strict=True))


class TracedState(dict[str, Tensor]):
    """The state of a policy in the tensors that a graph writes to."""


def _as_tensor(value: Any) -> Tensor:
    """Return a float, or an array or a list of floats, as a tensor."""
    if isinstance(value, float | int):
        return torch.full((), value, dtype=torch.float64)
    return torch.as_tensor(value, dtype=torch.float64)


@torch.library.custom_op("gradclip::clip_step_", mutates_args={"grads", "states"})
def _clip_step_(
    grads: list[Tensor],
    sizes: list[int],
    max_norms: list[Tensor | None],
    policy: str,
    by_policy: list[bool],
    states: list[Tensor],
    max_value: Tensor | None,
    eps: Tensor,
    ord: float,
    nonfinite: str,
    per_group: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rest, left = iter(grads), iter(states)
    scopes: list[Scope] = []
    for n, limit, chosen in zip(sizes, max_norms, by_policy, strict=True):
        leaves = traced_leaves([next(rest) for _ in range(n)])
        if chosen:
            listed = _table[int(policy)]
            scopes.append(Scope(leaves, None, listed.policy, {field: next(left) for field in listed.fields}))
        else:
            scopes.append(Scope(leaves, _checks.threshold(limit, "max_norm")))
    rule = Rule(None, ord, nonfinite, 1.0, eps)
    told, after = clip_scopes_(scopes, rule, _checks.threshold(max_value, "max_value"), 1.0)
    for scope, new in zip(scopes, after, strict=True):
        for field, tensor in (scope.state or {}).items():
            tensor.copy_(torch.as_tensor(getattr(new, field)))
    done = together(told) if per_group else told[0]
    return done.norm, done.coefficient, done.clipped, as_tensor(done.threshold, done.norm).clone()


@_clip_step_.register_fake
def _(
    grads: list[Tensor], sizes: list[int], max_norms: object, policy: str, by_policy: list[bool], *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    del max_norms
    per_group = rest[-1]
    norm = norm_like(grads if per_group else grads[: sizes[0]])
    each = bool(policy) and _table[int(policy)].policy.per_leaf
    shapes = [(n,) if each and chosen and n else () for n, chosen in zip(sizes, by_policy, strict=True)]
    if per_group:
        norm, shapes[0] = norm.new_empty(len(sizes)), (sum(math.prod(shape) for shape in shapes),)
    threshold = norm.new_empty(shapes[0])
    return norm, torch.empty_like(norm), torch.empty_like(norm, dtype=torch.bool), threshold


@torch.library.custom_op("gradclip::policy_state", mutates_args=())
def _policy_state(grads: list[Tensor], policy: str, given: list[Tensor]) -> list[Tensor]:
    chosen, like = _table[int(policy)].policy, _like(grads, policy)
    state = chosen.init(like)
    if given:
        state = restored(chosen, like, dict(zip(state._fields, given, strict=True)))
    return [x.clone() for x in state]


@_policy_state.register_fake
def _(grads: list[Tensor], policy: str, *_: object) -> list[Tensor]:
    return list(_table[int(policy)].policy.init(_like(grads, policy)))


def _like(grads: list[Tensor], policy: str) -> Tensor:
    """Return zeros of the shape, dtype and device of the norms that a policy sees."""
    return norm_like(grads).new_zeros(len(grads) if _table[int(policy)].policy.per_leaf else ())
