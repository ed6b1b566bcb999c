"""`Rule`, the checked arguments of a call, and `Decision`, which is made before anything is written."""

import math
from dataclasses import dataclass
from typing import Any

from gradclip import _checks
from gradclip._coefficient import Coefficient, at_least_zero, coefficient, coefficient_of_floats
from gradclip._namespace import is_recorded, namespace
from gradclip._partial import NormPartial, beside, positive
from gradclip._powers import root_of_float
from gradclip._types import AnyArray, AnyScalar, Nonfinite


class Rule:
    """The checked arguments of clipping by global norm, as `gradclip.clip_by_global_norm` describes them."""

    __slots__ = ("eps", "loss_scale", "max_norm", "nonfinite", "ord")

    def __init__(
        self,
        max_norm: object,
        ord: object = 2.0,
        nonfinite: object = "propagate",
        loss_scale: object = 1.0,
        eps: object = 0.0,
    ) -> None:
        self.max_norm = _checks.threshold(max_norm, "max_norm")
        self.ord = _checks.order(ord)
        self.nonfinite: Nonfinite = _checks.nonfinite(nonfinite)
        self.loss_scale = _checks.positive(loss_scale, "scale", "scale=1.0 for gradients that are not scaled")
        self.eps = _checks.not_negative(eps, "eps")

    @property
    def zero(self) -> bool:
        """Whether all gradients become zero if one is NaN or inf."""
        return self.nonfinite == "zero"

    def numbers(self) -> tuple[AnyScalar, AnyScalar, AnyScalar]:
        """Return the threshold (inf if there is none), eps and the loss scale."""
        return math.inf if self.max_norm is None else self.max_norm, self.eps, self.loss_scale

    def floats(self) -> tuple[float, float, float] | None:
        """Return these as floats, or None if one is traced, or its derivatives are recorded.

        A negative one is 0, a loss scale not above 0 is NaN.
        """
        max_norm, eps, loss_scale = self.numbers()
        if not (isinstance(max_norm, float) and isinstance(eps, float) and isinstance(loss_scale, float)):
            if any(map(is_recorded, (max_norm, eps, loss_scale))):
                return None
            try:
                max_norm, eps, loss_scale = (at_least_zero(_read(number)) for number in (max_norm, eps, loss_scale))
            except (TypeError, RuntimeError):
                return None
        return max_norm, eps, positive(loss_scale)


@dataclass(frozen=True, slots=True)
class Decision:
    """The norm of gradients, and the coefficient that they are multiplied by.

    Parameters
    ----------
    norm : array
        The norm before clipping, without the loss scale: 0-d, on the first leaf's device.
    coefficient : Coefficient
        What every leaf is multiplied by.
    total : array or float
        The total of the partial norm: finite if and only if all gradients are finite.
    max_norm : array, float or None
        The threshold that a policy chose: 0-d, or one for each leaf. None: no policy chose it.
    skipped : array or bool
        Whether the step is to be skipped, as some policies say.
    """

    norm: AnyArray
    coefficient: Coefficient
    total: AnyScalar
    max_norm: AnyScalar | None = None
    skipped: AnyArray = False

    @property
    def clipped(self) -> AnyArray:
        """Whether the gradients change: they are clipped, made zero, or divided by a loss scale."""
        changed = self.coefficient.changed
        return changed if isinstance(changed, bool) or not changed.ndim else namespace([changed]).any(changed)

    @property
    def finite(self) -> AnyArray:
        """Whether no gradient is NaN or inf."""
        return (
            math.isfinite(self.total) if isinstance(self.total, float) else namespace([self.total]).isfinite(self.total)
        )


def decide_by_arrays(partial: NormPartial, rule: Rule) -> Decision:
    """Return the decision for gradients with this partial norm; no Python branch depends on a value."""
    c = coefficient(partial, rule.max_norm, eps=rule.eps, loss_scale=rule.loss_scale, nonfinite=rule.nonfinite)
    return Decision(unscaled_norm(partial, rule.loss_scale), c, partial.total)


def decide_by_floats(
    scale: float, total: float, ord: float, numbers: tuple[float, float, float], *, zero: bool
) -> tuple[float, Coefficient]:
    """Return the norm and the coefficient for a partial norm of two floats; ``numbers`` is from `Rule.floats`."""
    max_norm, eps, loss_scale = numbers
    c = coefficient_of_floats(scale, total, ord, max_norm, eps=eps, loss_scale=loss_scale, zero=zero)
    return scale / loss_scale * root_of_float(total, ord), c


def unscaled_norm(partial: NormPartial, loss_scale: AnyScalar) -> AnyArray:
    """Return the norm of the unscaled gradients: of the gradients divided by ``loss_scale``."""
    return unscaled(partial, loss_scale).norm()


def unscaled(partial: NormPartial, loss_scale: AnyScalar) -> NormPartial:
    """Return the partial norm of the gradients divided by ``loss_scale``."""
    if isinstance(loss_scale, float) and loss_scale == 1:
        return partial
    loss_scale = positive(beside(partial, loss_scale))
    return NormPartial(partial.scale / loss_scale, partial.total, partial.ord, partial.dtype)


def _read(number: AnyScalar) -> float:
    """Return the value of a number; if it is an array on a device, the host waits for it."""
    value: Any = number
    return float(value if isinstance(value, float) else value.detach() if hasattr(value, "detach") else value)
