"""Checks of the arguments of policies. Each message says what was passed, what was expected, and the remedy."""

import math
from collections.abc import Sequence
from typing import Any, SupportsIndex

from gradclip._number import as_number
from gradclip._words import short


def number(
    value: object,
    name: str,
    remedy: str,
    *,
    above: float | None = None,
    below: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> float:
    """Return a finite number as a float: greater than ``above``, less than ``below``, from ``least`` to ``most``.

    Raises
    ------
    TypeError
        If it is not a real number whose value is known.
    ValueError
        If it is out of these bounds.
    """
    found = as_number(value, name, remedy)
    if not isinstance(found, float):
        raise TypeError(f"{name}={short(value)}, expected a Python number: a policy keeps no arrays; pass {remedy}")
    bounds = {">": above, "<": below, ">=": least, "<=": most}
    expected = [f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None]
    inside = (
        (above is None or found > above)
        and (below is None or found < below)
        and (least is None or found >= least)
        and (most is None or found <= most)
    )
    if not (inside and math.isfinite(found)):
        raise ValueError(f"{name}={short(value)}, expected a finite number {' and '.join(expected)}; pass {remedy}")
    return float(found)


def count(value: object, name: str, remedy: str, *, least: int = 1) -> int:
    """Return an integer that is at least ``least``.

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"{name}={short(value)}, expected an integer number of steps; pass {remedy}")
    found = int(value.__index__())
    if found < least:
        raise ValueError(f"{name}={short(value)}, expected an integer >= {least}; pass {remedy}")
    return found


def choice(value: object, name: str, choices: Sequence[str]) -> None:
    """Check that a value is one of the names.

    Raises
    ------
    ValueError
        If it is not.
    """
    if value not in choices:
        raise ValueError(f"{name}={short(value)}, expected one of {', '.join(map(repr, choices))}; pass one of them")


def keep(policy: Any, **fields: object) -> None:
    """Set fields of a frozen dataclass to their checked values."""
    for name, value in fields.items():
        object.__setattr__(policy, name, value)
