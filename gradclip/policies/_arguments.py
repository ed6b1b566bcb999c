"""Checks of the arguments of policies. Each message says what was passed, what was expected, and the remedy."""

import math
from collections.abc import Sequence
from typing import Any

from gradclip._number import as_number
from gradclip._words import short


def number(
    value: object, name: str, remedy: str, *, above: float = -math.inf, below: float = math.inf, zero: bool = False
) -> float:
    """Return a number in the open interval (``above``, ``below``) as a float; with ``zero``, it may be 0 too.

    Raises
    ------
    TypeError
        If it is not a real number whose value is known.
    ValueError
        If it is out of the interval.
    """
    found = as_number(value, name, remedy)
    if not isinstance(found, float):
        raise TypeError(f"{name}={short(value)}, expected a Python number: a policy keeps no arrays; pass {remedy}")
    if not (above < found < below or (zero and found == 0)):
        bounds = [f">{'=' * (zero and above == 0)} {above:g}"] * (above > -math.inf)
        bounds += [f"< {below:g}"] * (below < math.inf)
        expected = " and ".join(bounds) + " and finite" * (below == math.inf)
        raise ValueError(f"{name}={short(value)}, expected a number {expected}; pass {remedy}")
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
    if isinstance(value, bool) or not hasattr(value, "__index__"):
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
