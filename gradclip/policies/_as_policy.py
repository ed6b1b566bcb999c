"""What users pass as a policy, and what they save of it: checked, and converted back."""

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np

from gradclip import _namespace as ns
from gradclip._number import as_number
from gradclip._types import AnyArray, AnyScalar
from gradclip._words import kind, short
from gradclip.policies._fixed import Fixed
from gradclip.policies._policy import AnyPolicy


def as_policy(value: object, name: str = "policy") -> AnyPolicy:
    """Return a policy; a number becomes `Fixed`.

    Raises
    ------
    TypeError
        If it is neither: a class instead of an instance, for example.
    ValueError
        If it is a negative number or NaN.
    """
    if is_policy(value, name):
        return value
    try:
        number = as_number(value, name, "math.inf for no clipping")
    except TypeError:
        number = None
    if not isinstance(number, float):
        raise TypeError(
            f"{name}={short(value)} is {kind(value)}, expected a policy or a number; pass one of gradclip.policies, "
            "such as ZClip(), or an object with init(), update(), skips and per_leaf"
        )
    return Fixed(number)


_NAMES = ("init", "update", "skips", "per_leaf")
_types: dict[type, bool] = {}
"""Whether a type that was seen has what a policy has. Python takes 25 µs for ``isinstance`` of a Protocol."""


def is_policy(value: object, name: str = "max_norm") -> TypeGuard[AnyPolicy]:
    """Whether a value is a policy.

    Raises
    ------
    TypeError
        If it is the class of one, which has the same methods.
    """
    if isinstance(value, type):
        raise TypeError(f"{name} is the class {value.__name__}, expected a policy; pass {value.__name__}()")
    found = _types.get(type(value))
    if found is None:
        found = _types[type(value)] = all(hasattr(value, x) for x in _NAMES)
    return found


def saved(state: Any) -> dict[str, Any] | None:
    """Return a state as a dict: of floats and lists on a host, of arrays on a device. None stays None."""
    if state is None:
        return None
    fields = state if isinstance(state, Mapping) else state._asdict()
    return {name: _plain(value) for name, value in fields.items()}


def restored(policy: AnyPolicy, like: AnyScalar, fields: Mapping[str, Any]) -> Any:
    """Return a state from what `saved` returned, for norms like ``like``.

    Raises
    ------
    ValueError
        If the fields are those of another policy, or their shapes are.
    """
    fresh = policy.init(like)._asdict()
    if fields.keys() != fresh.keys():
        raise ValueError(
            f"the saved state has the fields {sorted(fields)}, expected {sorted(fresh)} for {policy!r}; load it with "
            "the policy that it was saved with"
        )
    values = {name: _like(target, fields[name], name) for name, target in fresh.items()}
    return policy.init(like)._replace(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, int | float):
        return float(value) if isinstance(value, float) else value
    return _listed(value) if ns.is_host(value) else value


def _listed(value: AnyArray) -> Any:
    """Return an array as a float, or as a list of floats."""
    return (value if hasattr(value, "tolist") else np.asarray(value)).tolist()


def _like(target: Any, value: Any, name: str) -> AnyArray:
    """Return a saved value as an array of the shape, dtype and device of another, or as a number."""
    if isinstance(target, int | float):
        return type(target)(value)
    if ns.is_array(value) and type(value) is not type(target):
        value = _listed(value)
    found = ns.namespace([target]).asarray(value, dtype=target.dtype, device=ns.device(target))
    if found.shape != target.shape:
        raise ValueError(
            f"{name} of the saved state has shape {tuple(found.shape)}, expected {tuple(target.shape)}; use the window "
            "and the number of leaves that it was saved with"
        )
    return found
