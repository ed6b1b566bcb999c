"""A norm that comes with its coefficient: where one small kernel computes both, and nothing is read back."""

import math
from dataclasses import dataclass

from gradclip._coefficient import Coefficient
from gradclip._global import Rule
from gradclip._nonfinite import refuse_nonfinite
from gradclip._partial import NormPartial
from gradclip._tree import Leaves
from gradclip._types import Array, Scalar


@dataclass(frozen=True, slots=True)
class Settings:
    """What a coefficient is computed from; by default, it is 1.

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
    """A partial of all leaves that came with its norm, and with its coefficient for ``settings``, from one kernel.

    ``memory`` is where all of them lie.
    """

    known_norm: Array
    coefficient: Coefficient
    settings: Settings
    memory: object

    def norm(self) -> Array:
        """Return the norm."""
        return self.known_norm


class FinishingRule(Rule):
    """The checked arguments of clipping by global norm, whose coefficient may come with the norm."""

    def __init__(self, max_norm: object, ord: object, nonfinite: object, scale: object, eps: object) -> None:
        super().__init__(max_norm, ord, nonfinite, scale, eps)
        self.settings = Settings(self.max_norm, self.eps, self.scale, self.nonfinite == "zero")

    def coefficient(self, leaves: Leaves, partial: NormPartial) -> Coefficient:
        """Return the coefficient for a norm, or refuse it."""
        if not isinstance(partial, Finished) or partial.settings is not self.settings:
            return super().coefficient(leaves, partial)
        if self.nonfinite == "error":
            refuse_nonfinite(leaves, partial)
        return partial.coefficient
