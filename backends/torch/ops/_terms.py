"""The terms of a call: the arguments that must be the same on all ranks, besides threshold and order.

All of them travel as one number, a checksum of their text. Only if the numbers of ranks differ, the texts travel too.
"""

import re
import zlib
from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor

from gradclip._decision import Rule
from gradclip.backends.torch.ops._ranks import named

Terms: TypeAlias = Mapping[str, str]
"""What the arguments are called, and their values as text, the same in every process."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class TermsDifferError(ValueError):
    """Ranks were called with different terms."""


def terms_of(rule: Rule, **others: object) -> Terms:
    """Return the terms of a rule, and further ones."""
    return {
        name: _text(value)
        for name, value in {"nonfinite": rule.nonfinite, "scale": rule.loss_scale, "eps": rule.eps, **others}.items()
    }


def number_of(terms: Terms) -> float:
    """Return the number of terms: a whole one that float32 holds; 0 for none."""
    return float(zlib.crc32(repr(sorted(terms.items())).encode()) >> 8) if terms else 0.0


def difference_of(told: Mapping[int, Terms]) -> str:
    """Return which terms of ranks differ, and the values on each rank."""
    found = []
    for name in dict.fromkeys(name for terms in told.values() for name in terms):
        of: dict[str, list[int]] = {}
        for rank, terms in told.items():
            of.setdefault(terms.get(name, "not known"), []).append(rank)
        if len(of) > 1:
            found.append(f"{name} is " + "; ".join(f"{value} on {named(ranks)}" for value, ranks in of.items()))
    return ", ".join(found)


def _text(value: Any) -> str:
    """Return a value as text; of a tensor on a device, which is not read, and of functions, only what they are."""
    if isinstance(value, Tensor):
        is_known = value.device.type == "cpu" and not value.ndim
        return f"{value.item():g}" if is_known else f"a tensor on {value.device.type}"
    if isinstance(value, float):
        return f"{value:g}"
    return _ADDRESS.sub("", str(value))
