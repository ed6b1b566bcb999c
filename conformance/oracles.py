"""Exact answers to compare with: integers, fractions and 80 digits. Nothing of gradclip's is imported here.

Values of every dtype travel as float64 or complex128 arrays, which hold each of them exactly.
"""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import mpmath
import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = NDArray[Any]
"""The values of a leaf, exactly: float64 for real dtypes, complex128 for complex ones."""

Real: TypeAlias = Any
"""A number of `EXACT`."""

EXACT = mpmath.mp.clone()
EXACT.dps = 80


class Format(NamedTuple):
    """A binary floating-point format: bits of the significand, exponents of the least and largest normal numbers."""

    precision: int
    emin: int
    emax: int

    @property
    def eps(self) -> float:
        """The distance from 1 to the next number."""
        return 2.0 ** (1 - self.precision)

    @property
    def tiny(self) -> float:
        """The least normal number."""
        return 2.0**self.emin

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return math.ldexp(2.0 - self.eps, self.emax)


FORMATS = {
    "float16": Format(11, -14, 15),
    "bfloat16": Format(8, -126, 127),
    "float32": Format(24, -126, 127),
    "float64": Format(53, -1022, 1023),
}


def component(dtype: str) -> str:
    """Return the real dtype that a dtype's elements are made of."""
    return {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)


def format_of(dtype: str) -> Format:
    """Return the format of a dtype's components."""
    return FORMATS[component(dtype)]


def norm_dtype(dtypes: Iterable[str]) -> str:
    """Return the dtype that the norm of leaves of these dtypes must have."""
    return "float64" if any(component(d) == "float64" for d in dtypes) else "float32"


def components(values: Values) -> NDArray[np.float64]:
    """Return the real numbers that a leaf consists of, in order; real parts first."""
    if values.dtype.kind != "c":
        return np.ravel(values)
    return np.concatenate([np.ravel(values.real), np.ravel(values.imag)])


def exact(x: float | Fraction) -> Real:
    """Return a number as one of `EXACT`."""
    if isinstance(x, float) and math.isfinite(x):
        return EXACT.mpf(x)  # every float64 is one, and this is the fast way
    x = Fraction(x)
    return EXACT.mpf(x.numerator) / x.denominator


def sum_of_squares(values: Values) -> Fraction:
    """Return the sum of the squares of all components without any rounding, at the speed of NumPy.

    Significands are split into halves whose products are summed as integers, exponent by exponent.
    """
    flat = components(values)
    sums: dict[int, int] = {}
    for start in range(0, flat.size, 1 << 20):
        fraction, exponent = np.frexp(flat[start : start + (1 << 20)])
        significand = np.abs(np.ldexp(fraction, 53)).astype(np.int64)
        high, low = significand >> 27, significand & (2**27 - 1)
        bins = exponent - exponent.min()
        for product, shift in ((low * low, 0), (low * high, 28), (high * high, 54)):
            for part, more in ((product & (2**27 - 1), 0), (product >> 27, 27)):
                totals = np.bincount(bins, weights=part)
                for e in np.flatnonzero(totals).tolist():
                    place = 2 * (e + int(exponent.min()) - 53) + shift + more
                    sums[place] = sums.get(place, 0) + int(totals[e])
    return sum((total * Fraction(2) ** place for place, total in sums.items()), Fraction(0))


def magnitudes(values: Values) -> list[tuple[Real, int]]:
    """Return the distinct absolute values with their counts."""
    distinct, counts = np.unique(values, return_counts=True)
    if values.dtype.kind != "c":
        sizes = [exact(abs(v)) for v in distinct.tolist()]
    else:
        sizes = [EXACT.sqrt(exact(Fraction(v.real) ** 2 + Fraction(v.imag) ** 2)) for v in distinct.tolist()]
    return list(zip(sizes, counts.tolist(), strict=True))


def norm(leaves: Sequence[Values], ord: float = 2.0) -> Real:
    """Return the norm of all leaves laid end to end."""
    if ord == 2:
        return EXACT.sqrt(exact(sum((sum_of_squares(x) for x in leaves), Fraction(0))))
    sizes = [pair for x in leaves for pair in magnitudes(x)]
    if ord == math.inf:
        return max((size for size, _ in sizes), default=EXACT.mpf(0))
    p = exact(ord)
    total = EXACT.fsum(count * size**p for size, count in sizes if size)
    return total ** (1 / p) if total else total


def rms(values: Values) -> Real:
    """Return the root mean square of a leaf."""
    return norm([values]) / EXACT.sqrt(max(1, values.size))


def coefficient(size: Real, max_norm: float | Real, eps: float = 0.0) -> Real:
    """Return the coefficient for a norm: max_norm / (norm + eps), but at most 1."""
    size, limit = size + exact(eps), max_norm if isinstance(max_norm, EXACT.mpf) else exact(max_norm)
    return EXACT.mpf(1) if size <= limit else limit / size


def scaled(values: Values, factor: Real) -> list[Real]:
    """Return each component of a leaf times a number."""
    return [exact(v) * factor for v in components(values).tolist()]


def fraction_of(x: Real) -> Fraction:
    """Return a number of `EXACT` as a fraction, exactly."""
    sign, mantissa, exponent, _ = x._mpf_
    power: Fraction = Fraction(2) ** exponent
    return Fraction(-int(mantissa) if sign else int(mantissa)) * power


def ulp(x: Real, dtype: str) -> Real:
    """Return the distance between neighbours of ``x`` in a dtype; for subnormal ``x``, the least positive number."""
    return _power_of_two(_place(x, format_of(dtype)))


@cache
def _power_of_two(exponent: int) -> Real:
    return EXACT.mpf(2) ** exponent


def _place(x: Real, fmt: Format) -> int:
    """Return the exponent of the last bit of ``x``'s significand in a format."""
    _, significand, exponent, bits = x._mpf_
    return (max(exponent + bits - 1, fmt.emin) if significand else fmt.emin) - fmt.precision + 1


def round_to(x: Real, dtype: str) -> float:
    """Return the nearest number of a dtype, with ties to even; inf beyond its range."""
    fmt = format_of(dtype)
    negative, significand, exponent, _ = x._mpf_
    place = _place(x, fmt)
    units = _shifted(int(significand), exponent - place)
    beyond = units.bit_length() + place - 1 > fmt.emax
    nearest = math.inf if beyond else math.ldexp(units, place)
    return -nearest if negative and units else nearest


def _shifted(n: int, bits: int) -> int:
    """Return ``n`` times a power of two, rounded half to even."""
    if bits >= 0:
        return n << bits
    whole, rest, half = n >> -bits, n & ((1 << -bits) - 1), 1 << (-bits - 1)
    return whole + (rest > half or (rest == half and whole & 1))


def unit_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of a unit of adaptive clipping, as optax's ``unitwise_norm`` chooses them."""
    if sum(n != 1 for n in shape) <= 1:
        return tuple(range(len(shape)))
    return {2: (0,), 3: (0,), 4: (0, 1, 2), 5: (0, 1, 2, 3)}[len(shape)]


def units(values: Values, axes: tuple[int, ...]) -> list[tuple[Any, Values]]:
    """Return the units of a leaf, each with the index that selects it."""
    kept = [range(1) if i in axes else range(n) for i, n in enumerate(values.shape)]
    places = np.array(np.meshgrid(*kept, indexing="ij")).reshape(len(kept), -1).T if kept else [()]
    keys = [tuple(slice(None) if i in axes else int(k) for i, k in enumerate(place)) for place in places]
    return [(key, values[key]) for key in keys]
