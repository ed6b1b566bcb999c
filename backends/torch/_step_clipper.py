"""`StepClipper`: the arguments of `attach`, and the states of its policies."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from gradclip import _checks
from gradclip._decision import Rule
from gradclip._types import AnyScalar, Nonfinite
from gradclip._words import short
from gradclip.backends.torch._arguments import norm_order
from gradclip.backends.torch._compiled_step import TracedPart, TracedPolicy, clip_parts_compiled_, traced_state
from gradclip.backends.torch._groups import Part, parts_of
from gradclip.backends.torch._leaves import gradients
from gradclip.backends.torch._policy_states import PolicyStates, Rows
from gradclip.backends.torch._sharing import Group, Replicated, sharing_of
from gradclip.backends.torch._step import Scope, Told, any_of, clip_scopes_, together
from gradclip.policies._as_policy import is_policy
from gradclip.policies._policy import AnyPolicy


class StepClipper:
    """Clips the gradients of param groups by the arguments of `attach`, which it checks and keeps.

    Parameters
    ----------
    max_norm, max_value, norm_type, nonfinite, eps, per_group, group, replicated
        As for `attach`.
    """

    def __init__(
        self,
        max_norm: AnyScalar | AnyPolicy | None,
        max_value: AnyScalar | None,
        norm_type: float | str,
        nonfinite: Nonfinite,
        eps: AnyScalar,
        per_group: bool,
        group: Group = None,
        replicated: Replicated = (),
    ) -> None:
        self._rule = Rule(None, norm_order(norm_type), nonfinite, 1.0, eps)
        self._per_group = bool(per_group)
        self._group, self._replicated = group, replicated
        self._states = PolicyStates()
        self._traced: TracedPolicy | None = None
        self._max_norm: AnyScalar | AnyPolicy | None = None
        self._max_value: AnyScalar | None = None
        self.max_norm, self.max_value = max_norm, max_value

    @property
    def max_norm(self) -> AnyScalar | AnyPolicy | None:
        """The threshold, or the policy that chooses it."""
        return self._max_norm

    @max_norm.setter
    def max_norm(self, value: AnyScalar | AnyPolicy | None) -> None:
        chosen = value if is_policy(value, "max_norm") else _checks.live_threshold(value, "max_norm")
        self._check_together(chosen, self._max_value)
        if not (is_policy(chosen) and is_policy(self._max_norm) and chosen == self._max_norm):
            self._states.forget(self._traced)
        self._max_norm = chosen
        self._traced = TracedPolicy.of(chosen) if is_policy(chosen) else None

    @property
    def max_value(self) -> AnyScalar | None:
        """The bound of each element."""
        return self._max_value

    @max_value.setter
    def max_value(self, value: AnyScalar | None) -> None:
        bound = _checks.live_threshold(value, "max_value")
        self._check_together(self._max_norm, bound)
        self._max_value = bound

    def skips(self, groups: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a policy may skip steps."""
        return any(is_policy(p) and p.skips for p in map(self._limit, self._parts(groups)))

    @property
    def reads_back(self) -> bool:
        """Whether the host waits for the device at each step."""
        return self._rule.nonfinite == "error"

    def clip_(
        self, groups: Sequence[dict[str, Any]], loss_scale: AnyScalar, unless: bool | Tensor, before: Told | None
    ) -> Told:
        """Clip the gradients of param groups, and return what was done.

        Parameters
        ----------
        groups : sequence of dict
            The param groups.
        loss_scale : float or 0-d tensor
            What the gradients are multiplied by.
        unless : bool or 0-d tensor
            If True, the step is skipped anyway: results and states stay as they were.
        before : Told or None
            The results of the step before.
        """
        parts = self._parts(groups)
        self._states.check_loaded([part.name for part in parts if is_policy(self._limit(part))])
        bound = _checks.threshold(self._max_value, "max_value")
        with ExitStack() as ranks:  # an error on one rank is told to the others
            scopes, rows = zip(*(self._scope(part, groups, ranks) for part in parts), strict=True)
            each, states = clip_scopes_(scopes, self._rule, bound, loss_scale)
        told = together(each) if self._per_group else each[0]._replace(skipped=any_of([x.skipped for x in each]))
        if isinstance(unless, Tensor):
            told = told_unless(unless, before, told)
            pairs = zip(scopes, states, strict=True)
            states = [_state_unless(unless, scope.state, new) for scope, new in pairs]
        for part, scope, some, new in zip(parts, scopes, rows, states, strict=True):
            if scope.policy is not None:
                owner = self._owner(part)
                full = new if some is None else some.put(scope.policy, self._states.of(part.name, owner), new)
                self._states.keep(part.name, owner, full)
        return told

    def clip_compiled_(self, groups: Sequence[dict[str, Any]]) -> Told | None:
        """Clip as one operation of the graph that is being compiled; None if that cannot be."""
        limits = [group["max_norm"] for group in groups if "max_norm" in group] + [self._max_value]
        if self._traced is None:
            limits.append(self._max_norm)
        elif self._traced.skips:  # the step is in the graph, and cannot be left out
            return None
        if self._group is not None or not all(map(_is_traced, limits)):
            return None
        if any(hasattr(p, "device_mesh") for group in groups for p in group["params"]):
            return None
        parts = []
        for part in self._parts(groups):
            grads = [p.grad for i in part.groups for p in groups[i]["params"] if p.grad is not None]
            if part.own or self._traced is None:
                parts.append(TracedPart(grads, self._limit(part), None))
            else:
                state = traced_state(self._traced, grads, self._states.of(part.name, self._traced))
                self._states.keep(part.name, self._traced, state)
                parts.append(TracedPart(grads, None, state))
        return clip_parts_compiled_(parts, self._traced, self._max_value, self._rule, per_group=self._per_group)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of policies as plain numbers, lists and tensors."""
        return self._states.save()

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Load states that `state_dict` returned; they become those of the policies at the next step."""
        self._states.load(states)

    def _parts(self, groups: Sequence[Mapping[str, Any]]) -> list[Part]:
        return parts_of(groups, per_group=self._per_group)

    def _limit(self, part: Part) -> Any:
        return part.max_norm if part.own else self._max_norm

    def _owner(self, part: Part) -> object:
        """Return what names the policy of a part, the same in compiled steps and in others."""
        return part.max_norm if part.own else self._traced

    def _scope(self, part: Part, groups: Sequence[Mapping[str, Any]], ranks: ExitStack) -> tuple[Scope, Rows | None]:
        """Return the gradients of a part with its threshold, or its policy and that policy's state.

        If a policy has a threshold for each gradient, and some gradients are missing, the rows of the others in the
        policy's state are returned too.
        """
        limit = self._limit(part)
        name = "optimizer's parameters" if part.name == "all" else f"optimizer's param_groups[{part.groups[0]}]"
        params = [p for i in part.groups for p in groups[i]["params"]]
        sharing = ranks.enter_context(sharing_of(params, self._group, self._replicated, part=True))
        leaves = gradients(params, name, sharing=sharing)
        if not is_policy(limit):
            return Scope(leaves, _checks.threshold(limit, "max_norm")), None
        state = self._states.of(part.name, self._owner(part))
        rows = Rows.of(params, leaves) if limit.per_leaf else None
        return Scope(leaves, None, limit, state if rows is None else rows.of_state(limit, state)), rows

    def _check_together(self, max_norm: object, max_value: object) -> None:
        if is_policy(max_norm) and max_norm.per_leaf and self._group is not None and self._rule.ord != 2:
            raise ValueError(
                f"norm_type={self._rule.ord:g} with group= and {type(max_norm).__name__} was asked for, expected "
                "norm_type=2: from no other norm of the other ranks' gradients does the norm of all follow"
            )
        if is_policy(max_norm) and max_norm.per_leaf and max_value is not None and self._rule.zero:
            raise ValueError(
                f'max_value={short(max_value)} with nonfinite="zero" and {type(max_norm).__name__} was asked for, '
                "expected two of them: a bound makes inf finite before each gradient's own norm is known; leave one out"
            )


def _is_traced(threshold: object) -> bool:
    """Whether a graph can read a threshold: None, a float or a tensor; it cannot read policies and other numbers."""
    return threshold is None or isinstance(threshold, float | Tensor)


def told_unless(skipped: Tensor, before: Told | None, told: Told) -> Told:
    """Return the results of the step before if this step is skipped on the device, else those of this step."""
    if before is None or before.norm.shape != told.norm.shape:
        before = Told(told.norm * math.nan, torch.ones_like(told.norm), torch.zeros_like(told.clipped))
    kept = [torch.where(skipped.to(y.device), x.to(y), y) for x, y in zip(before[:3], told[:3], strict=True)]
    return told._replace(norm=kept[0], coefficient=kept[1], clipped=kept[2])


def _state_unless(skipped: Tensor, old: Any, new: Any) -> Any:
    """Return the old state of a policy if the step is skipped on the device, else the new one."""
    if old is None or isinstance(old, Mapping) or not any(isinstance(x, Tensor) for x in new):
        return new
    return type(new)(*(torch.where(skipped.to(y.device), x.to(y), y) for x, y in zip(old, new, strict=True)))
