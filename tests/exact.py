"""The exact oracles of `conformance.oracles` for plain numbers, as most unit tests have them."""

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from gradclip.conformance import oracles
from gradclip.conformance.oracles import EXACT as mpmath
from gradclip.conformance.oracles import Real

__all__ = ["clipped", "mpmath", "norm", "relative_error", "square_sum", "stands_for"]


def norm(values: Iterable[complex], ord: float = 2.0) -> Real:
    """Return the p-norm to 80 digits."""
    return oracles.norm([_array(values)], ord)


def square_sum(values: Iterable[float]) -> Fraction:
    """Return the sum of squares, exactly."""
    return oracles.sum_of_squares(_array(values))


def clipped(values: Iterable[float], max_norm: float, ord: float = 2.0) -> list[Real]:
    """Return the values times min(1, max_norm / norm), to 80 digits."""
    array = _array(values)
    return oracles.scaled(array, oracles.coefficient(oracles.norm([array], ord), max_norm))


def relative_error(got: float | Real, right: Real) -> float:
    """Return |got - right| / right, and 0 for 0 = 0. A number to 80 digits, as `stands_for` returns it, stays one."""
    if right == 0:
        return 0.0 if got == 0 else math.inf
    exact = got if isinstance(got, mpmath.mpf) else mpmath.mpf(float(got))
    return float(abs(exact - right) / right)


def stands_for(scale: float, total: float, ord: float) -> Real:
    """Return what a partial norm stands for: scale * total^(1/ord), scale * total for inf, without any rounding."""
    power = 1 if ord == math.inf else 1 / mpmath.mpf(ord)
    return mpmath.mpf(float(scale)) * mpmath.mpf(float(total)) ** power


def _array(values: Iterable[complex]) -> oracles.Values:
    """Return numbers of any kind as float64, or complex128 if one of them is complex."""
    listed = list(values)
    return np.array(listed, complex if any(isinstance(v, complex) for v in listed) else float)
