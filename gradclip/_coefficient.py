"""The coefficient, which every leaf is multiplied by: computed from a norm and a threshold.

`coefficient` takes arrays. No Python branch depends on a value, so it also runs on an accelerator and under tracing.
`coefficient_of_floats` computes the same from floats, in less time; it is used on a host, where the norm is known.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gradclip._dtypes import SMALLEST_NORMAL, is_double
from gradclip._namespace import device, is_numpy, is_whole, namespace, to_device
from gradclip._partial import NormPartial, beside, positive
from gradclip._powers import root, root_of_float
from gradclip._types import AnyArray, AnyScalar, Nonfinite


@dataclass(frozen=True, eq=False)
class Coefficient:
    """The number ``factor / divisor`` that a leaf is multiplied by, kept as two numbers that are each in range.

    Parameters
    ----------
    divisor, factor : array or float
        Of the accumulation dtype, 0-d or of a shape that broadcasts with the leaf. On a host, floats.
    changed : array or bool
        Where it is False, the leaf is not changed, bit for bit.
    zeroed : array, bool or None
        Where it is True, all elements of the leaf become zero, also NaN. None if the rule does not ask for this.
    """

    divisor: AnyScalar
    factor: AnyScalar
    changed: AnyArray
    zeroed: AnyArray | None = None

    @cached_property
    def multipliers(self) -> tuple[AnyScalar, AnyScalar]:
        """Two numbers whose product is the coefficient; leaves are multiplied by one, then by the other.

        Where ``factor / divisor`` is a normal number, the first is that quotient and the second is 1, so that small
        elements do not underflow between the two products. Leaves are multiplied, not divided, because compilers fuse
        products into the loop over a leaf. The two numbers are computed once for all leaves.
        """
        whole = self.factor / self.divisor
        if isinstance(whole, float):
            return (whole, 1.0) if whole >= SMALLEST_NORMAL[True] else (1 / self.divisor, self.factor)
        xp = namespace([self.factor])
        normal = whole >= SMALLEST_NORMAL[is_double(self.factor.dtype)]
        return xp.where(normal, whole, 1 / self.divisor), xp.where(normal, xp.ones_like(self.factor), self.factor)

    @property
    def number(self) -> AnyScalar:
        """The coefficient as one number, for users to read: 0 where leaves become zero."""
        whole = self.factor / self.divisor
        if self.zeroed is None:
            return whole
        if isinstance(whole, float):
            return 0.0 if self.zeroed else whole
        xp = namespace([whole])
        return xp.where(self.zeroed, xp.zeros_like(whole), whole)

    def __getitem__(self, key: Any) -> "Coefficient":
        """Return the coefficient of one leaf of a batch, or of one slice of a leaf."""
        zeroed = None if self.zeroed is None else self.zeroed[key]
        return Coefficient(self.divisor[key], self.factor[key], self.changed[key], zeroed)

    def leading(self, ndim: int) -> "Coefficient":
        """Return the coefficients of slices along a leading axis, to broadcast with a leaf of ``ndim`` axes."""
        return self[(slice(None), *[None] * (ndim - 1))]

    def zero_all(self, where: AnyArray) -> "Coefficient":
        """Return the coefficients of a batch, by which all leaves become zero if ``where``, 0-d, is True."""
        zeroed = namespace([where]).zeros_like(self.changed) | where
        return Coefficient(self.divisor, self.factor, self.changed | zeroed, zeroed)

    def parts(self, *, floats: bool = False) -> "list[Coefficient]":
        """Return the coefficients of the leaves of a batch; with ``floats``, as floats if the values may be read."""
        if floats and self.zeroed is None and not is_whole(self.factor):
            with suppress(RuntimeError):  # traced by a transform of torch.func
                listed = (part.tolist() for part in (self.divisor, self.factor, self.changed))
                return [Coefficient(*numbers) for numbers in zip(*listed, strict=True)]
        return [self[i, ...] for i in range(self.factor.shape[0])]

    def to(self, target: object) -> "Coefficient":
        """Return the coefficient on a device. Floats need not be moved."""
        if target is None or isinstance(self.factor, float) or target == device(self.factor):
            return self
        zeroed = None if self.zeroed is None else to_device(self.zeroed, target)
        divisor, factor, changed = (to_device(part, target) for part in (self.divisor, self.factor, self.changed))
        return Coefficient(divisor, factor, changed, zeroed)

    def arrays(self, xp: Any, dtype: AnyArray, where: object) -> "Coefficient":
        """Return the coefficient as arrays on a device; floats become arrays of this namespace and dtype."""
        if not isinstance(self.factor, float):
            return self.to(where)
        divisor, factor = (xp.asarray(x, dtype=dtype, device=where) for x in (self.divisor, self.factor))
        changed, zeroed = (None if x is None else xp.asarray(x, device=where) for x in (self.changed, self.zeroed))
        return Coefficient(divisor, factor, changed, zeroed)

    def floats(self) -> "Coefficient | None":
        """Return the coefficient as floats; None if it is a batch, or its values must not be read."""
        if isinstance(self.factor, float):
            return self
        if self.factor.ndim or is_whole(self.factor):
            return None
        try:
            zeroed = None if self.zeroed is None else bool(self.zeroed)
            return Coefficient(float(self.divisor), float(self.factor), bool(self.changed), zeroed)
        except RuntimeError:  # traced by a transform of torch.func
            return None


def is_shared(coefficients: Sequence[Coefficient]) -> bool:
    """Whether all leaves, at least one, have the same coefficient, as when they are clipped by a global norm."""
    return coefficients.count(coefficients[0]) == len(coefficients)


def coefficient(
    partial: NormPartial,
    max_norm: AnyScalar | None,
    *,
    eps: AnyScalar = 0.0,
    loss_scale: AnyScalar = 1.0,
    nonfinite: Nonfinite = "propagate",
) -> Coefficient:
    """Return the coefficient that clips a norm to ``max_norm``: max_norm / (norm + eps) if that is below 1, else 1.

    Let s · r be the norm of the leaves, with r = total^(1/p), and L the loss scale. Then

        max_norm / (s · r / L + eps) / L  =  [ max_norm / (r + eps · L / s) ]  /  s

    The right side is computed: ``factor`` is in brackets and ``divisor`` is s. Both are in range even if s · r is not.

    Parameters
    ----------
    partial : NormPartial
        The norm, 0-d or a batch of them.
    max_norm : float, array or None
        The threshold, or one for each norm of the batch; None or inf never clips. A negative one counts as 0, so that
        no leaf is reversed: it may be an array whose value was not known when arguments were checked.
    eps : float or 0-d array
        Added to the norm in the denominator, as other libraries do. A negative one counts as 0.
    loss_scale : float or 0-d array
        The loss scale L: the leaves are divided by it, clipped or not.
    nonfinite : {"propagate", "error", "zero"}
        With "zero", leaves become zero where the partial norm is NaN or inf.
    """
    xp = namespace([partial.total])
    one = xp.ones_like(partial.total)
    eps, loss_scale = beside(partial, eps), positive(beside(partial, loss_scale))
    unscaled = one / loss_scale
    r = root(xp, partial.total, partial.ord)
    if max_norm is None or (isinstance(max_norm, float) and max_norm == math.inf):
        clipped = xp.zeros_like(partial.total, dtype=xp.bool)
        divisor, factor = one, unscaled
    else:
        threshold, eps = _like(partial, max_norm), at_least_zero(eps)
        norm = partial.scale / loss_scale * r  # divide first: the norm of the scaled leaves may be out of range
        below = norm + eps <= threshold  # False for NaN, so that NaN spreads
        clipped = ~(below | (threshold == math.inf))
        divisor = xp.where(clipped, partial.scale, one)
        factor = xp.where(clipped, threshold / xp.where(clipped, r + eps * loss_scale / partial.scale, one), unscaled)
    changed = clipped if isinstance(loss_scale, float) and loss_scale == 1 else clipped | (one == 1)
    zeroed = None
    if nonfinite == "zero":
        zeroed = ~xp.isfinite(partial.total)
        changed = changed | zeroed
    return Coefficient(divisor, factor, changed, zeroed)


def coefficient_of_floats(
    scale: float, total: float, ord: float, max_norm: float, *, eps: float, loss_scale: float, zero: bool
) -> Coefficient:
    """Return what `coefficient` returns, for a norm given by two floats: ``scale * total ** (1 / ord)``.

    ``max_norm=inf`` clips nothing. With ``zero``, leaves become zero if ``total`` is NaN or inf.
    """
    r = root_of_float(total, ord)
    clipped = max_norm != math.inf and not scale / loss_scale * r + eps <= max_norm
    zeroed = not math.isfinite(total) if zero else None
    changed = clipped or loss_scale != 1 or bool(zeroed)
    if not clipped:
        return Coefficient(1.0, 1 / loss_scale, changed, zeroed)
    return Coefficient(scale, max_norm / (r + eps * loss_scale / scale), changed, zeroed)


def at_least_zero(value: AnyScalar) -> AnyScalar:
    """Return a number, or 0 if it is negative; NaN stays. The value of an array may not have been checked."""
    if isinstance(value, float):  # NumPy's float64 too
        return type(value)(0) if value < 0 else value
    xp = namespace([value])
    return xp.where(value < 0, xp.zeros_like(value), value)


def _like(partial: NormPartial, value: AnyScalar) -> AnyArray:
    """Return a threshold as an array of the partial's dtype, on its device and at least 0."""
    xp = namespace([partial.total])
    if isinstance(value, float):
        return xp.full_like(partial.total, value)
    if is_numpy(xp):  # the threshold may be another library's array
        return at_least_zero(xp.asarray(value, dtype=partial.total.dtype))
    return at_least_zero(to_device(xp.astype(value, partial.total.dtype), device(partial.total)))
