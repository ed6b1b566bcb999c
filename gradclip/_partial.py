"""The mergeable partial norm: a pair (scale, total) that stands for scale · total^(1/p).

Partial norms of chunks, leaves, devices and ranks are all merged by the functions below. ``scale`` has the magnitude of
the gradients, so ``total`` neither overflows nor underflows. Merging is associative, so the norm does not depend on how
the gradients are spread over devices.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradclip._dtypes import SMALLEST_NORMAL, is_double
from gradclip._limits import SUM_BLOCK_NUMEL
from gradclip._namespace import adds_pairwise, as_array, device, namespace, numel, peak, stack_numbers, to_device
from gradclip._types import AnyArray, AnyScalar, Axes, Namespace
from gradclip._words import a


@dataclass(frozen=True, slots=True)
class NormPartial:
    """The norm of a part of the gradients, in a form that can be merged with the norms of other parts.

    It stands for ``scale * total ** (1 / ord)``, or for ``scale * total`` if ``ord`` is inf. The two arrays have the
    same shape: 0-d for one norm, more for a batch of norms. To merge over processes, gather ``scale`` and ``total``.

    Parameters
    ----------
    scale : array
        Positive and finite, float64 (float32 on devices without float64).
    total : array
        The sum of ``|x / scale| ** ord``, of the same shape, dtype and device. NaN or inf if a gradient is.
    ord : float
        The order of the norm, positive or inf.
    dtype : dtype
        The dtype that `norm` returns: float64 if any leaf is float64 or complex128, else float32.

    See Also
    --------
    gradclip.norm_partial : computes one from a container of arrays.
    gradclip.clip_with_norm : clips by a norm that was merged elsewhere.

    References
    ----------
    .. [1] J. L. Blue, "A Portable Fortran Program to Find the Euclidean Norm of a Vector", ACM TOMS 4(1), 1978: the
       scaled sum of squares, generalised here to any order.
    """

    scale: AnyArray
    total: AnyArray
    ord: float
    dtype: AnyArray

    @np.errstate(all="ignore")
    def merge(self, other: "NormPartial") -> "NormPartial":
        """Return the partial norm of both parts together, element by element, on this partial's device.

        Parameters
        ----------
        other : NormPartial
            The partial norm of another part. It has the same order, and a shape that broadcasts with this one's.

        Raises
        ------
        TypeError
            If ``other`` is not a NormPartial.
        ValueError
            If the orders differ.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> a = gradclip.norm_partial(np.array([3e300]))
        >>> b = gradclip.norm_partial(np.array([4e300]))
        >>> a.merge(b).norm()
        array(5.e+300)
        """
        _check_mergeable(self, other)
        xp = namespace([self.total])
        where = device(self.total)
        t1, t2 = self.total, to_device(other.total, where)
        s1, s2 = _live(xp, self.scale, t1), _live(xp, to_device(other.scale, where), t2)
        scale = xp.where(s1 >= s2, s1, s2)
        t1, t2 = rescale(xp, t1, s1 / scale, self.ord), rescale(xp, t2, s2 / scale, self.ord)
        total = t1 + t2 if self.ord != math.inf else xp.where((t1 >= t2) | (t1 != t1), t1, t2)
        return NormPartial(scale, total, self.ord, self.dtype if is_double(self.dtype) else other.dtype)

    @np.errstate(all="ignore")
    def norm(self) -> AnyArray:
        """Return the norm as a real array of ``dtype`` and of this partial's shape; inf where it is not representable.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> gradclip.norm_partial(np.array([3.0, 4.0])).norm()
        array(5.)
        """
        xp = namespace([self.total])
        return as_array(xp.astype(self.scale * root(xp, self.total, self.ord), self.dtype))


def beside(partial: NormPartial, value: AnyScalar) -> AnyScalar:
    """Return a number; if it is an array, on the device of a partial norm."""
    return value if isinstance(value, float) else to_device(value, device(partial.total))


def positive(scale: AnyScalar) -> AnyScalar:
    """Return a loss scale, or NaN if it is not above 0, as the value of an array may be that could not be checked."""
    if isinstance(scale, float):
        return scale if scale > 0 else math.nan
    xp = namespace([scale])
    return xp.where(scale > 0, scale, xp.full_like(scale, math.nan))


def root(xp: Namespace, total: AnyArray, ord: float) -> AnyArray:
    """Return ``total ** (1 / ord)``, with a finite derivative at zero."""
    if ord in (1, math.inf):
        return total
    zero = total == 0
    safe = xp.where(zero, xp.ones_like(total), total)  # at 0 the derivative of a root is inf, and inf · 0 is NaN
    return xp.where(zero, xp.zeros_like(total), xp.sqrt(safe) if ord == 2 else safe ** (1 / ord))


def safe_scale(xp: Namespace, largest: AnyArray) -> AnyArray:
    """Return ``largest``, or the nearest number that elements can be divided by: never 0, inf or NaN.

    Compilers may replace a division by a multiplication with the reciprocal, and flush subnormal numbers to zero. So
    the number and its reciprocal must both be normal.
    """
    smallest = SMALLEST_NORMAL[is_double(largest.dtype)]
    low, high = xp.full_like(largest, smallest), xp.full_like(largest, 1 / smallest)
    usable = (largest >= low) & (largest <= high)
    return xp.where(usable, largest, xp.where(largest < low, low, high))


def reduce_powers(xp: Namespace, values: AnyArray, ord: float, axes: Axes | None = None) -> AnyArray:
    """Return the sum of ``values ** ord`` (for inf, the maximum) over ``axes``, which are kept; over all for None."""
    if ord == math.inf:
        return peak(xp, values, axes)
    powers = _power(xp, values, ord)
    return _sum(xp, powers) if axes is None else xp.sum(powers, axis=axes, keepdims=True)


def merge_elements(partial: NormPartial, axis: int | None = None) -> NormPartial:
    """Return the merged partial norms of a batch, along one axis (which is removed) or of all; none may be empty."""
    xp = namespace([partial.total])
    scales = _live(xp, partial.scale, partial.total)
    scale = xp.max(scales, axis=axis)
    terms = rescale(xp, partial.total, scales / scale, partial.ord)
    total = xp.max(terms, axis=axis) if partial.ord == math.inf else xp.sum(terms, axis=axis)
    return NormPartial(scale, total, partial.ord, partial.dtype)


def stack(partials: Sequence[NormPartial]) -> NormPartial:
    """Return 0-d partial norms as one batch of shape (len(partials),), on the device of the first."""
    xp = namespace([partials[0].total])
    where = device(partials[0].total)
    scale = stack_numbers(xp, [to_device(p.scale, where) for p in partials])
    total = stack_numbers(xp, [to_device(p.total, where) for p in partials])
    dtype = next((p.dtype for p in partials if is_double(p.dtype)), partials[0].dtype)
    return NormPartial(scale, total, partials[0].ord, dtype)


def concat(first: NormPartial, second: NormPartial, axis: int) -> NormPartial:
    """Return two batches of partial norms, concatenated along ``axis``."""
    xp = namespace([first.total])
    scale = xp.concat([first.scale, second.scale], axis=axis)
    return NormPartial(scale, xp.concat([first.total, second.total], axis=axis), first.ord, first.dtype)


def from_norm(xp: Namespace, norm: AnyArray) -> NormPartial:
    """Return the partial norm for a known norm, a 0-d array of the accumulation dtype."""
    scale = safe_scale(xp, norm)
    return NormPartial(scale, norm / scale, math.inf, norm.dtype)


def _sum(xp: Namespace, values: AnyArray) -> AnyArray:
    """Return the sum of all elements, added in a tree: the rounding error grows with the height of the tree only.

    NumPy, Dask and XLA add in a tree themselves. Other namespaces may add the elements one after the other.
    """
    n = numel(values)
    if adds_pairwise(xp) or n <= SUM_BLOCK_NUMEL:
        return xp.sum(values)
    whole = n - n % SUM_BLOCK_NUMEL
    flat = xp.reshape(values, (-1,))
    blocks = xp.sum(xp.reshape(flat[:whole], (-1, SUM_BLOCK_NUMEL)), axis=1)
    return _sum(xp, xp.concat([blocks, flat[whole:]]) if whole < n else blocks)


def _live(xp: Namespace, scale: AnyArray, total: AnyArray) -> AnyArray:
    """Return ``scale``, or the least scale where ``total`` is 0, so that zeros do not raise the scale of a merge."""
    return xp.where(total == 0, xp.full_like(scale, SMALLEST_NORMAL[is_double(scale.dtype)]), scale)


def rescale(xp: Namespace, total: AnyArray, ratio: AnyArray, ord: float) -> AnyArray:
    """Return ``total`` for a scale ``1 / ratio`` times as large. NaN and inf are kept, because 0 · inf is NaN."""
    return xp.where(xp.isfinite(total), total * _power(xp, ratio, ord), total)


def _power(xp: Namespace, values: AnyArray, ord: float) -> AnyArray:
    if ord in (1, math.inf):
        return values
    if ord >= 2:
        return values * values if ord == 2 else values**ord
    zero = values == 0  # at 0 a derivative of the power is inf, and inf · 0 is NaN
    return xp.where(zero, values, xp.where(zero, xp.ones_like(values), values) ** ord)


def _check_mergeable(one: NormPartial, other: object) -> None:
    if not isinstance(other, NormPartial):
        raise TypeError(f"merge() got {a(type(other).__name__)}, expected a NormPartial; make one with norm_partial()")
    if one.ord != other.ord:
        raise ValueError(
            f"merge() got partials of ord={one.ord} and ord={other.ord}, expected the same order; "
            "make both with the same ord="
        )
