"""Sums of powers and their roots: the arithmetic of partial norms, in range and with finite derivatives."""

import math

from gradclip._dtypes import SMALLEST_NORMAL, is_double
from gradclip._limits import SUM_BLOCK_NUMEL
from gradclip._namespace import adds_pairwise, constant, numel, peak
from gradclip._types import AnyArray, Axes, Namespace


def reduce_powers(xp: Namespace, values: AnyArray, ord: float, axes: Axes | None = None) -> AnyArray:
    """Return the sum of ``values ** ord`` (for inf, the maximum) over ``axes``, which are kept; over all for None."""
    if ord == math.inf:
        return peak(xp, values, axes)
    powers = _power(xp, values, ord)
    return _sum(xp, powers) if axes is None else xp.sum(powers, axis=axes, keepdims=True)


def root(xp: Namespace, total: AnyArray, ord: float) -> AnyArray:
    """Return ``total ** (1 / ord)``, with a finite derivative at zero."""
    if ord in (1, math.inf):
        return total
    zero = total == 0
    safe = xp.where(zero, xp.ones_like(total), total)  # at 0 the derivative of a root is inf, and inf · 0 is NaN
    return xp.where(zero, xp.zeros_like(total), xp.sqrt(safe) if ord == 2 else safe ** (1 / ord))


def root_of_float(total: float, ord: float) -> float:
    """Return what `root` returns, for a float; inf if that is out of range."""
    if ord == 2:
        return math.sqrt(total)
    try:
        return total if ord in (1, math.inf) else total ** (1 / ord)
    except OverflowError:
        return math.inf


def safe_scale(xp: Namespace, largest: AnyArray) -> AnyArray:
    """Return ``largest``, or the nearest number that elements can be divided by: never 0, inf or NaN.

    Compilers may replace a division by a multiplication with the reciprocal, and flush subnormal numbers to zero. So
    the number and its reciprocal must both be normal.
    """
    smallest = SMALLEST_NORMAL[is_double(largest.dtype)]
    low, high = xp.full_like(largest, smallest), xp.full_like(largest, 1 / smallest)
    usable = (largest >= low) & (largest <= high)
    return constant(xp, xp.where(usable, largest, xp.where(largest < low, low, high)))


def rescale(xp: Namespace, total: AnyArray, ratio: AnyArray, ord: float) -> AnyArray:
    """Return ``total`` for a scale ``1 / ratio`` times as large. NaN and inf are kept, because 0 · inf is NaN."""
    return xp.where(xp.isfinite(total), total * _power(xp, ratio, ord), total)


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


def _power(xp: Namespace, values: AnyArray, ord: float) -> AnyArray:
    if ord in (1, math.inf):
        return values
    if ord >= 2:
        return values * values if ord == 2 else values**ord
    zero = values == 0  # at 0 a derivative of the power is inf, and inf · 0 is NaN
    return xp.where(zero, values, xp.where(zero, xp.ones_like(values), values) ** ord)
