"""What is recorded of a step, under the names that loggers show."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradclip import _namespace as ns

NAMES = {
    "norm": "grad_norm",
    "max_norm": "gradclip/max_norm",
    "coefficient": "gradclip/coefficient",
    "clipped": "gradclip/clipped",
    "skipped": "gradclip/skipped",
    "update_norm": "update_norm",
    "loss": "loss",
}
"""The name of each field in logs: that of the norm is the one that Transformers and torchtitan use."""

PARAMETER = "grad_norm/"
"""Before a parameter's name, in logs."""


def fetched(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return rows with floats in place of 0-d arrays. Arrays of one device are read together, in one transfer."""
    places: dict[tuple[Any, Any, Any], list[tuple[int, str]]] = {}
    found: list[dict[str, float]] = [dict.fromkeys(row, math.nan) for row in rows]
    for i, row in enumerate(rows):
        for name, value in row.items():
            if isinstance(value, int | float):
                found[i][name] = float(value)
            elif ns.is_host(value):
                found[i][name] = _number(value)
            else:
                places.setdefault((type(value), ns.device(value), value.dtype), []).append((i, name))
    for where in places.values():
        values = [rows[i][name] for i, name in where]
        xp = ns.namespace(values)
        together = xp.stack([_least(xp, value) for value in values])
        for (i, name), number in zip(where, together.tolist(), strict=True):
            found[i][name] = float(number)
    return found


def _number(value: Any) -> float:
    """Return a number; of several, one for each group or gradient, the smallest."""
    array = np.asarray(value.detach() if hasattr(value, "detach") else value)
    return float(array.min()) if array.size else math.nan


def _least(xp: Any, value: Any) -> Any:
    return xp.min(value) if value.ndim else value
