"""Numbers as arguments: which objects count as a number, and messages that say how to pass one."""

import math
import numbers
from decimal import Decimal
from typing import Any

from gradclip import _dtypes
from gradclip import _namespace as ns
from gradclip._types import AnyArray, AnyScalar
from gradclip._words import a, short

_REAL = (numbers.Real, Decimal)


def as_number(value: object, name: str, remedy: str) -> AnyScalar:
    """Return a real number as a float, also if it is an array of one element in the host's memory.

    An array of one element on a device, or whose derivatives are recorded, is returned as a 0-d array and not read.

    Raises
    ------
    TypeError
        If it is no real number: a string, a boolean, a complex number, an array of several elements.
    """
    if type(value) is float:
        return value
    if isinstance(value, _REAL) and not isinstance(value, bool):
        return _as_float(value)
    if isinstance(value, str | bytes) or not ns.is_array(value):
        raise TypeError(
            f"{name}={short(value)} is {a(type(value).__name__)}, expected a real number or a 0-d array; "
            f"pass {_remedy(value, name) or f'a float, or {remedy}'}"
        )
    return _element(value, name)


def known_value(number: AnyScalar) -> float | None:
    """Return the value of a number as a float, or None for an array whose value must not be read."""
    if isinstance(number, float):
        return number
    return float(number.detach()) if ns.is_recorded(number) and ns.is_host(number) else None


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer or a fraction out of float64's range
        return math.inf if value > 0 else -math.inf


def _element(value: AnyArray, name: str) -> AnyScalar:
    """Return the one element of an array."""
    if ns.numel(value) != 1:
        raise TypeError(
            f"{name} has shape {tuple(value.shape)}, expected a number or a 0-d array; pass one number, or an array of "
            "one element"
        )
    if not _dtypes.is_real(value.dtype) and "int" not in _dtypes.dtype_name(value.dtype):
        raise TypeError(f"{name} has dtype {value.dtype}, expected a real number; pass a float")
    xp = ns.namespace([value])
    if value.ndim:
        value = xp.reshape(value, ())
    if ns.is_host(value) and not ns.is_recorded(value):
        return float(value)
    return (
        value if _dtypes.is_real(value.dtype) else xp.astype(value, ns.wide_dtype(xp, value))
    )  # unsigned has no negative


def _remedy(value: object, name: str) -> str:
    """Return how to pass the number that a string contains, or "" if it contains none."""
    if not isinstance(value, str | bytes):
        return ""
    try:
        float(value)
    except ValueError:
        return ""
    exponent = "e" in str(value).lower()
    spelt = short(str(value) if isinstance(value, str) else value)
    return f"{name}=float({spelt})" + " (YAML reads 1e-3 as a string, 1.0e-3 as a number)" * exponent
