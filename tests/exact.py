"""Exact oracles: they use no array library and nothing of gradclip."""

import math
from collections.abc import Iterable
from fractions import Fraction

import mpmath

mpmath.mp.dps = 100


def norm(values: Iterable[complex], ord: float = 2.0) -> mpmath.mpf:
    """Return the p-norm to 100 digits."""
    parts = [_magnitude(v) for v in values]
    if not parts:
        return mpmath.mpf(0)
    if ord == math.inf:
        return max(parts)
    return mpmath.root(mpmath.fsum(part ** mpmath.mpf(ord) for part in parts), 1) ** (1 / mpmath.mpf(ord))


def square_sum(values: Iterable[float]) -> Fraction:
    """Return the sum of squares, exactly."""
    return sum((Fraction(v) ** 2 for v in values), Fraction(0))


def clipped(values: Iterable[float], max_norm: float, ord: float = 2.0) -> list[mpmath.mpf]:
    """Return the values times min(1, max_norm / norm), to 100 digits."""
    values = list(values)
    size = norm(values, ord)
    factor = mpmath.mpf(1) if size <= max_norm else mpmath.mpf(max_norm) / size
    return [mpmath.mpf(v) * factor for v in values]


def relative_error(got: float, exact: mpmath.mpf) -> float:
    """Return |got - exact| / exact, and 0 for 0 = 0."""
    if exact == 0:
        return 0.0 if got == 0 else math.inf
    return float(abs(mpmath.mpf(float(got)) - exact) / exact)


def _magnitude(value: complex) -> mpmath.mpf:
    if isinstance(value, complex):
        return mpmath.hypot(mpmath.mpf(value.real), mpmath.mpf(value.imag))
    return abs(mpmath.mpf(float(value)))


def stands_for(scale: float, total: float, ord: float) -> mpmath.mpf:
    """Return what a partial norm stands for: scale * total^(1/ord), without rounding to any dtype."""
    power = mpmath.mpf(1) if ord == math.inf else 1 / mpmath.mpf(ord)
    return mpmath.mpf(float(scale)) * mpmath.mpf(float(total)) ** power
