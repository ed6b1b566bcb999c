"""From a norm and a threshold to the one number that every leaf is multiplied by, for arrays and for floats.

`coefficient` branches on no value, so the same lines run on an accelerator and under tracing. On a host the norm is
known, and `coefficient_of_floats` computes the same in a fraction of the time.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gradclip._namespace import device, is_double, is_numpy, is_whole, namespace, to_device
from gradclip._partial import NormPartial, beside, positive, root
from gradclip._types import Array, Nonfinite, Scalar

_NORMAL = {True: 2.0**-1022, False: 2.0**-126}
"""The least normal number, by whether numbers are kept in double precision."""


@dataclass(frozen=True, eq=False)
class Coefficient:
    """The number ``factor / divisor`` that a leaf is multiplied by, kept as two so that neither over- nor underflows.

    Parameters
    ----------
    divisor, factor : array or float
        Of the accumulation dtype, 0-d or of a shape that broadcasts with the leaf. On a host, floats.
    changed : array or bool
        Where it is False, the leaf stays as it is, bit for bit.
    zeroed : array, bool or None
        Where it is True, the leaf becomes zero, NaN too.
    """

    divisor: Scalar
    factor: Scalar
    changed: Array
    zeroed: Array | None = None

    @cached_property
    def multipliers(self) -> tuple[Scalar, Scalar]:
        """Two numbers to multiply by one after the other; once for all leaves, for it is a handful of operations.

        The second is 1 where the quotient is normal, so that tiny elements survive beside huge ones. Products, as
        compilers fuse them into every use, but not quotients.
        """
        whole = self.factor / self.divisor
        if isinstance(whole, float):
            return (whole, 1.0) if whole >= _NORMAL[True] else (1 / self.divisor, self.factor)
        xp = namespace([self.factor])
        normal = whole >= _NORMAL[is_double(self.factor.dtype)]
        return xp.where(normal, whole, 1 / self.divisor), xp.where(normal, xp.ones_like(self.factor), self.factor)

    @property
    def number(self) -> Scalar:
        """What a leaf is multiplied by, as one number to be told: 0 where it becomes zero."""
        whole = self.factor / self.divisor
        if self.zeroed is None:
            return whole
        if isinstance(whole, float):
            return 0.0 if self.zeroed else whole
        xp = namespace([whole])
        return xp.where(self.zeroed, xp.zeros_like(whole), whole)

    def __getitem__(self, key: Any) -> "Coefficient":
        """Return the coefficient of a part: of one leaf of a batch, or of one slice of a leaf."""
        zeroed = None if self.zeroed is None else self.zeroed[key]
        return Coefficient(self.divisor[key], self.factor[key], self.changed[key], zeroed)

    def to(self, target: object) -> "Coefficient":
        """Return the coefficient on a device; floats are on every device."""
        if target is None or isinstance(self.factor, float) or target == device(self.factor):
            return self
        zeroed = None if self.zeroed is None else to_device(self.zeroed, target)
        divisor, factor, changed = (to_device(part, target) for part in (self.divisor, self.factor, self.changed))
        return Coefficient(divisor, factor, changed, zeroed)

    def arrays(self, xp: Any, dtype: Array, where: object) -> "Coefficient":
        """Return the coefficient as arrays of a namespace, of this dtype and on this device, if it is floats."""
        if not isinstance(self.factor, float):
            return self.to(where)
        divisor, factor = (xp.asarray(x, dtype=dtype, device=where) for x in (self.divisor, self.factor))
        changed, zeroed = (None if x is None else xp.asarray(x, device=where) for x in (self.changed, self.zeroed))
        return Coefficient(divisor, factor, changed, zeroed)

    def floats(self) -> "Coefficient | None":
        """Return the coefficient as floats; None if it is more than one number, or its values are not to be read."""
        if isinstance(self.factor, float):
            return self
        if self.factor.ndim or is_whole(self.factor):
            return None
        try:
            zeroed = None if self.zeroed is None else bool(self.zeroed)
            return Coefficient(float(self.divisor), float(self.factor), bool(self.changed), zeroed)
        except RuntimeError:  # traced by a transform of torch.func
            return None


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
    xp = namespace([partial.total])
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


def coefficient_of_floats(
    scale: float, total: float, ord: float, max_norm: float, *, eps: float, loss_scale: float, zero: bool
) -> Coefficient:
    """Return what `coefficient` returns, for a partial of two floats: ``scale * total ** (1 / ord)``.

    ``max_norm`` is inf where nothing is clipped, and with ``zero`` leaves become zero where ``total`` is NaN or inf.
    """
    r = root_of_float(total, ord)
    clipped = max_norm != math.inf and not scale / loss_scale * r + eps <= max_norm
    zeroed = not math.isfinite(total) if zero else None
    changed = clipped or loss_scale != 1 or bool(zeroed)
    if not clipped:
        return Coefficient(1.0, 1 / loss_scale, changed, zeroed)
    return Coefficient(scale, max_norm / (r + eps * loss_scale / scale), changed, zeroed)


def root_of_float(total: float, ord: float) -> float:
    """Return ``total ** (1 / ord)``, inf where that is out of range."""
    if ord == 2:
        return math.sqrt(total)
    try:
        return total if ord in (1, math.inf) else total ** (1 / ord)
    except OverflowError:
        return math.inf


def at_least_zero(value: Scalar) -> Scalar:
    """Return a number, 0 for an array whose value could not be checked and is negative; NaN stays."""
    if isinstance(value, float):  # NumPy's float64 too
        return type(value)(0) if value < 0 else value
    xp = namespace([value])
    return xp.where(value < 0, xp.zeros_like(value), value)


def _like(partial: NormPartial, value: Scalar) -> Array:
    """Return a threshold as an array beside the partial, in its dtype and at least 0."""
    xp = namespace([partial.total])
    if isinstance(value, float):
        return xp.full_like(partial.total, value)
    if is_numpy(xp):  # the threshold may be another library's array
        return at_least_zero(xp.asarray(value, dtype=partial.total.dtype))
    return at_least_zero(to_device(xp.astype(value, partial.total.dtype), device(partial.total)))
