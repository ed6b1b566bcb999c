"""The result of the kernel ``finish``: the partial norm of all leaves, their norm, and the coefficient.

It stays in the GPU's memory. The arrays of a `Result` are views of it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gradclip._coefficient import Coefficient
from gradclip._decision import Decision, Rule
from gradclip._partial import NormPartial
from gradclip._types import AnyArray

PARTIAL_BYTES = 16
"""The size of ``struct Partial`` in kernels.cu."""

RESULT_BYTES = 48
"""The size of ``struct Result`` in kernels.cu. The partial norm is at its start, the rest at the offsets below."""

_NORM, _DIVISOR, _FACTOR, _NARROW_NORM, _CHANGED, _ZEROED = 16, 24, 32, 40, 44, 45


class Result(NamedTuple):
    """The decision and the partial norm of leaves, and the memory that they are views of."""

    decision: Decision
    partial: NormPartial
    memory: AnyArray


def read_result(memory: AnyArray, view: Callable[[int, Any], AnyArray], dtype: Any, rule: Rule) -> Result:
    """Return the contents of a ``struct Result``. ``view`` returns the 0-d array at an offset of ``memory``."""
    norm = view(_NORM, np.float64) if dtype == np.float64 else view(_NARROW_NORM, np.float32)
    zeroed = view(_ZEROED, np.bool_) if rule.zero else None
    divisor, factor, changed = view(_DIVISOR, np.float64), view(_FACTOR, np.float64), view(_CHANGED, np.bool_)
    partial = NormPartial(view(0, np.float64), view(8, np.float64), rule.ord, dtype)
    return Result(Decision(norm, Coefficient(divisor, factor, changed, zeroed), partial.total), partial, memory)
