"""What param groups say of clipping: ``"max_norm"``, a threshold or policy of their own, and ``"clip": False``."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch.optim import Optimizer
from torch.serialization import add_safe_globals

from gradclip import _checks, policies
from gradclip._types import AnyScalar
from gradclip._words import short
from gradclip.policies._as_policy import is_policy
from gradclip.policies._policy import AnyPolicy

add_safe_globals([getattr(policies, name) for name in policies.__all__ if name != "Policy"])
"""``torch.load(..., weights_only=True)`` reads an optimizer's state_dict, in which the param groups have policies."""


class Part(NamedTuple):
    """Param groups that are clipped by one norm.

    Parameters
    ----------
    name : str
        Its name in states, which a resumed run has, too.
    groups : list of int
        The positions of the groups.
    max_norm : float, 0-d tensor, Policy or None
        The threshold of a group of its own.
    own : bool
        Whether the group has a threshold of its own.
    """

    name: str
    groups: list[int]
    max_norm: AnyScalar | AnyPolicy | None = None
    own: bool = False


def parts_of(groups: Sequence[Mapping[str, Any]], *, per_group: bool = False) -> list[Part]:
    """Return the param groups that are clipped, by the norms that they are clipped by.

    Groups with ``"clip": False`` are left out. A group with ``"max_norm"`` is a part of its own. There is always one
    part, without groups if all are left out.

    Raises
    ------
    TypeError
        If ``"clip"`` is not a bool, or ``"max_norm"`` neither a number nor a policy.
    ValueError
        If ``"max_norm"`` is negative or NaN.
    """
    found: list[Part] = []
    rest: list[int] = []
    for i, group in enumerate(groups):
        if not is_clipped(group, f"param_groups[{i}]"):
            continue
        if "max_norm" in group:
            found.append(Part(f"group {i}", [i], _checked(group["max_norm"], f"param_groups[{i}]['max_norm']"), True))
        elif per_group:
            found.append(Part(f"group {i}", [i]))
        else:
            rest.append(i)
    return found if per_group and found else [Part("all", rest), *found]


def groups_of(source: object) -> Sequence[Mapping[str, Any]]:
    """Return the param groups in an optimizer or a list, if any has a threshold of its own; else none.

    Raises
    ------
    TypeError
        If such a threshold is a policy: it has a state, for which a function has no place.
    """
    groups: Any = source.param_groups if isinstance(source, Optimizer) else source
    if not isinstance(groups, list | tuple) or not groups or not isinstance(groups[0], dict):  # usually, parameters
        return ()
    if not any(isinstance(group, dict) and "max_norm" in group for group in groups):
        return ()
    for i, group in enumerate(groups):
        name = f"param_groups[{i}]['max_norm']"
        if is_policy(group.get("max_norm"), name):
            raise TypeError(
                f"{name} is a policy, {group['max_norm']!r}, expected a number for a call "
                "without a state; use attach(optimizer, ...), which keeps it"
            )
    return groups


def is_clipped(group: Mapping[str, Any], path: str) -> bool:
    """Return whether a param group is clipped: not if it has ``"clip": False``."""
    clip = group.get("clip", True)
    if not isinstance(clip, bool):
        raise TypeError(f"{path}['clip'] is {short(clip)}, expected True or False; False leaves the group out")
    return clip


def _checked(value: object, name: str) -> Any:
    return value if is_policy(value, name) else _checks.threshold(value, name)
