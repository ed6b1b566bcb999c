"""From a norm and a threshold to the one number that every leaf is multiplied by.

Nothing here branches on values, so the same lines run on the host, on an accelerator and under tracing.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gradclip._namespace import device, is_double, to_device
from gradclip._partial import NormPartial, beside, positive, root, space
from gradclip._types import Array, Nonfinite, Scalar


@dataclass(frozen=True)
class Coefficient:
    """The number ``factor / divisor`` that a leaf is multiplied by, kept as two so that neither over- nor underflows.

    Parameters
    ----------
    divisor, factor : array
        Of the accumulation dtype, 0-d or of a shape that broadcasts with the leaf.
    changed : array
        Boolean: where it is False, the leaf stays as it is, bit for bit.
    zeroed : array or None
        Boolean: where it is True, the leaf becomes zero, NaN too.
    """

    divisor: Array
    factor: Array
    changed: Array
    zeroed: Array | None = None

    @cached_property
    def multipliers(self) -> tuple[Array, Array]:
        """Two numbers to multiply by one after the other; once for all leaves, for it is a handful of operations.

        The second is 1 where the quotient is normal, so that tiny elements survive beside huge ones. Products, as
        compilers fuse them into every use, but not quotients.
        """
        xp = space(self.factor)
        whole = self.factor / self.divisor
        normal = whole >= (2.0**-1022 if is_double(self.factor.dtype) else 2.0**-126)
        return xp.where(normal, whole, 1 / self.divisor), xp.where(normal, xp.ones_like(self.factor), self.factor)

    @property
    def number(self) -> Array:
        """What a leaf is multiplied by, as one number to be told: 0 where it becomes zero."""
        xp, whole = space(self.factor), self.factor / self.divisor
        return whole if self.zeroed is None else xp.where(self.zeroed, xp.zeros_like(whole), whole)

    def __getitem__(self, key: Any) -> "Coefficient":
        """Return the coefficient of a part: of one leaf of a batch, or of one slice of a leaf."""
        zeroed = None if self.zeroed is None else self.zeroed[key]
        return Coefficient(self.divisor[key], self.factor[key], self.changed[key], zeroed)

    def to(self, target: object) -> "Coefficient":
        """Return the coefficient on a device."""
        if target is None or target == device(self.factor):
            return self
        zeroed = None if self.zeroed is None else to_device(self.zeroed, target)
        divisor, factor, changed = (to_device(part, target) for part in (self.divisor, self.factor, self.changed))
        return Coefficient(divisor, factor, changed, zeroed)


def coefficient(
    partial: NormPartial,
    max_norm: Scalar | None,
    *,
    eps: Scalar = 0.0,
    scale: Scalar = 1.0,
    nonfinite: Nonfinite = "propagate",
) -> Coefficient:
    """Return what brings a norm down to ``max_norm``: max_norm / (norm + eps) where that is below 1, else 1.

    With s · r the norm of the leaves, of which r = total^(1/p), and L the loss scale by which they are too large:

        max_norm / (s · r / L + eps) / L  =  max_norm / (r + eps · L / s)  /  s

    of which the right side is computed: ``factor`` and ``divisor`` are in range even where s · r is not.

    Parameters
    ----------
    partial : NormPartial
        The norm, 0-d or a batch of them.
    max_norm : float, array or None
        The threshold, or one for each norm of the batch; None or inf never clips. One that is negative, as an array may
        be whose value was not known when it was checked, is taken as 0, so that no leaf is ever turned round.
    eps : float or 0-d array
        Added to the norm, for parity with libraries that do so. Negative, it is taken as 0 likewise.
    scale : float or 0-d array
        The loss scale L: the leaves are divided by it, clipped or not.
    nonfinite : {"propagate", "error", "zero"}
        With "zero", leaves become zero where ``partial`` is NaN or inf.
    """
    xp = space(partial.total)
    one = xp.ones_like(partial.total)
    eps, scale = beside(partial, eps), positive(beside(partial, scale))
    unscaled = one / scale
    r = root(xp, partial.total, partial.ord)
    if max_norm is None or (isinstance(max_norm, float) and max_norm == math.inf):
        clipped = xp.zeros_like(partial.total, dtype=xp.bool)
        divisor, factor = one, unscaled
    else:
        limit, eps = _like(partial, max_norm), at_least_zero(eps)
        norm = partial.scale / scale * r  # in this order, for the norm of the scaled leaves may be out of range
        below = norm + eps <= limit  # False for NaN, so that NaN spreads
        clipped = ~(below | (limit == math.inf))
        divisor = xp.where(clipped, partial.scale, one)
        factor = xp.where(clipped, limit / xp.where(clipped, r + eps * scale / partial.scale, one), unscaled)
    changed = clipped if isinstance(scale, float) and scale == 1 else clipped | (one == 1)
    zeroed = None
    if nonfinite == "zero":
        zeroed = ~xp.isfinite(partial.total)
        changed = changed | zeroed
    return Coefficient(divisor, factor, changed, zeroed)


def at_least_zero(value: Scalar) -> Scalar:
    """Return a number, 0 for an array whose value could not be checked and is negative; NaN stays."""
    if isinstance(value, float):  # NumPy's float64 too
        return type(value)(0) if value < 0 else value
    xp = space(value)
    return xp.where(value < 0, xp.zeros_like(value), value)


def _like(partial: NormPartial, value: Scalar) -> Array:
    """Return a threshold as an array beside the partial, in its dtype and at least 0."""
    xp = space(partial.total)
    if isinstance(value, float):
        return xp.full_like(partial.total, value)
    return at_least_zero(to_device(xp.astype(value, partial.total.dtype), device(partial.total)))
