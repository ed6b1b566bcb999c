"""Partial norms of arrays in the host's memory, as two floats each, by the kernels in C."""

import math

import numpy as np

from gradclip import _native
from gradclip._calls import quiet
from gradclip._dtypes import TRUSTED_SUM
from gradclip._memory import NDArray
from gradclip._native import Kernels, Table, Threads
from gradclip._powers import root_of_float

_LARGEST_EXPONENT = 1021
"""The largest exponent of a power of two whose reciprocal is a normal number too."""

_FLOAT64 = bytes([_native.CODES["float64"]])


def has_float64(table: Table) -> bool:
    """Whether one of the arrays is float64 or complex128, so that the norm is float64."""
    return _FLOAT64 in table.codes


def has_order(ord: float, is_complex: bool) -> bool:
    """Whether the kernels have sums for an order of norms; of complex arrays they have only the sum of squares."""
    return ord == 2 or (ord in _native.ORDERS and not is_complex)


def sum_of(kernels: Kernels, table: Table, ord: float, threads: Threads) -> tuple[float, float]:
    """Return the scale and the total of the partial norm of all arrays.

    The arrays are read once; three times if float64 cannot hold the powers of float64 elements.
    """
    total = kernels.sum(table, ord, threads)
    if not has_float64(table):
        return 1.0, total
    if _is_trusted(total, ord, sum(table.nbytes)):
        return _balanced(total, ord)
    peak = kernels.sum(table, math.inf, threads)
    if not 0 < peak < math.inf:  # NaN and inf stay what they are
        return 1.0, peak
    scale = _power_of_two_near(peak)
    return scale, kernels.sum(table, ord, threads, 1.0 / scale)


@quiet
def sums_of(kernels: Kernels, table: Table, ord: float, threads: Threads) -> tuple[NDArray, NDArray]:
    """Return the scales and the totals of the partial norms of each array."""
    totals = np.frombuffer(kernels.sums(table, ord, threads))
    if not has_float64(table):
        return np.ones_like(totals), totals
    numels = np.asarray(table.nbytes) / 8
    trusted = (ord == math.inf) | np.isfinite(totals)
    if ord == 2:
        trusted &= numels * TRUSTED_SUM[True] <= totals
    scales, balanced = _all_balanced(totals, ord)
    for i in np.flatnonzero(~trusted).tolist():
        scales[i], balanced[i] = sum_of(kernels, table.rows([i]), ord, threads)
    return scales, balanced


def _all_balanced(totals: NDArray, ord: float) -> tuple[NDArray, NDArray]:
    """Return what `_balanced` returns, for each of many."""
    norms = np.sqrt(totals) if ord == 2 else totals
    exponents = np.where((norms > 0) & np.isfinite(norms), np.frexp(norms)[1], 0)
    scales = np.ldexp(1.0, np.clip(exponents, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
    return scales, totals / scales / scales if ord == 2 else totals / scales


def _balanced(total: float, ord: float) -> tuple[float, float]:
    """Return a power of two near the norm as the scale, and the total for it, so that no coefficient leaves float64."""
    norm = root_of_float(total, ord)
    if not 0 < norm < math.inf:
        return 1.0, total
    scale = _power_of_two_near(norm)
    return scale, total / scale / scale if ord == 2 else total / scale


def _power_of_two_near(number: float) -> float:
    """Return a power of two near a positive number; its reciprocal is a normal number too."""
    return math.ldexp(1.0, max(-_LARGEST_EXPONENT, min(_LARGEST_EXPONENT, math.frexp(number)[1])))


def _is_trusted(total: float, ord: float, nbytes: int) -> bool:
    """Whether the powers of float64 elements were in range, or what was lost of them is too small to matter."""
    numel = nbytes / 8
    return ord == math.inf or (math.isfinite(total) and (ord == 1 or numel * TRUSTED_SUM[True] <= total))
