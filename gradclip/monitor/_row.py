"""`Row`: what is recorded of one step, and the names under which loggers show it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from gradclip._types import AnyArray, AnyScalar
from gradclip._words import short
from gradclip.monitor._history import Floats

KEYS = {
    "norm": "grad_norm",
    "max_norm": "gradclip/max_norm",
    "coefficient": "gradclip/coefficient",
    "clipped": "gradclip/clipped",
    "skipped": "gradclip/skipped",
    "update_norm": "update_norm",
    "loss": "loss",
}
"""The name of each number in logs. That of the norm is the one of Transformers and torchtitan."""

PARAMETER = "grad_norm/"
"""Before the name of a parameter, in logs."""

NamedNorms = Mapping[str, AnyScalar] | tuple[Sequence[str], AnyArray]
"""Norms by the names of parameters, or names and an array of norms of shape ``(names,)``."""


class Row(NamedTuple):
    """What is recorded of a step. Numbers may still be arrays on a device.

    Parameters
    ----------
    step : int
        The number of the step.
    numbers : dict of str to float or array
        By the keys of `KEYS`. An array of several numbers, one for each group of gradients, becomes one by `reduced`.
    names : tuple of str
        The names of parameters.
    norms : sequence of float or array
        Their norms: one for each name, or a single array of all.
    """

    step: int
    numbers: dict[str, AnyScalar]
    names: tuple[str, ...] = ()
    norms: Sequence[AnyScalar] = ()


class Known(NamedTuple):
    """A row of numbers that are known on the host."""

    step: int
    numbers: dict[str, float]
    names: tuple[str, ...]
    norms: Floats


def logged(row: Known) -> dict[str, float]:
    """Return the numbers of a row by the names that loggers show."""
    named = {KEYS[name]: value for name, value in row.numbers.items()}
    named.update((PARAMETER + name, norm) for name, norm in zip(row.names, row.norms.tolist(), strict=True))
    return named


def reduced(name: str, values: float | Sequence[float] | NDArray[Any]) -> float:
    """Return one number for those of several groups of gradients.

    Norms become the Euclidean norm of all, "clipped" and "skipped" whether one was; else the smallest is kept, which
    for a coefficient or a threshold is that of the gradients that were clipped most.
    """
    if isinstance(values, float | int):
        return float(values)
    if len(values) == 1:
        return float(values[0])
    if len(values) == 0:
        return math.nan
    if name in {"norm", "update_norm"}:
        return math.hypot(*values)
    return float(max(values)) if name in {"clipped", "skipped"} else float(min(values))


def parameters_of(found: NamedNorms) -> tuple[tuple[str, ...], Sequence[AnyScalar]]:
    """Return the names and the norms."""
    if isinstance(found, Mapping):
        return tuple(found), list(found.values())
    names, norms = found
    return names if isinstance(names, tuple) else tuple(names), [norms]


def snapshot(value: Any) -> Any:
    """Return a copy of an array, which its owner may write to or give away; numbers need none.

    Raises
    ------
    TypeError
        If it is neither: now, and not when steps are fetched, which would be lost.
    """
    if isinstance(value, bool | int | float):
        return value
    if hasattr(value, "detach"):
        return value.detach().clone()
    if hasattr(value, "copy"):
        return value.copy()
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(
            f"a number of a step is {short(value)}, expected a real number or an array; pass float(...) of it"
        )
    return value
