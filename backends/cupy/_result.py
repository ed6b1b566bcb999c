"""What one small kernel leaves behind: the partial of all leaves, their norm, and the coefficient."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradclip._coefficient import Coefficient
from gradclip._partial import NormPartial
from gradclip._types import Array, Scalar

PARTIAL_BYTES = 16
"""Of ``struct Partial`` in kernels.cu."""

RESULT_BYTES = 48
"""Of ``struct Result`` there, which begins with the partial; what follows is at these offsets:"""

_NORM, _DIVISOR, _FACTOR, _NARROW_NORM, _CHANGED, _ZEROED = 16, 24, 32, 40, 44, 45


@dataclass(frozen=True, slots=True)
class Settings:
    """What the coefficient is computed from; by default, it is 1.

    Parameters
    ----------
    max_norm, eps, scale : float or 0-d array
        As for `gradclip.clip_by_global_norm`.
    zero : bool
        Whether gradients with NaN or inf become zero.
    """

    max_norm: Scalar | None = None
    eps: Scalar = 0.0
    scale: Scalar = 1.0
    zero: bool = False

    def numbers(self) -> tuple[Scalar, Scalar, Scalar]:
        """Return the three numbers; no threshold is an infinite one."""
        return math.inf if self.max_norm is None else self.max_norm, self.eps, self.scale


@dataclass(frozen=True, slots=True)
class Finished(NormPartial):
    """A partial of all leaves that came with its norm, and its coefficient for ``settings``, from one kernel."""

    known_norm: Array
    coefficient: Coefficient
    settings: Settings
    memory: Array

    def norm(self) -> Array:
        """Return the norm."""
        return self.known_norm


def read_result(
    memory: Array, view: Callable[[int, Any], Array], ord: float, dtype: Any, settings: Settings
) -> Finished:
    """Return a ``struct Result`` in memory, of which ``view`` gives the 0-d array at an offset."""
    norm = view(_NORM, np.float64) if dtype == np.float64 else view(_NARROW_NORM, np.float32)
    zeroed = view(_ZEROED, np.bool_) if settings.zero else None
    divisor, factor, changed = view(_DIVISOR, np.float64), view(_FACTOR, np.float64), view(_CHANGED, np.bool_)
    c = Coefficient(divisor, factor, changed, zeroed)
    return Finished(view(0, np.float64), view(8, np.float64), ord, dtype, norm, c, settings, memory)
