"""Partial norms by the kernels in C: what they stand for is exact to rounding at every magnitude that a dtype holds."""

import math

import numpy as np
import pytest

from gradclip import _native
from gradclip._host_memory import code_of, runs_of
from gradclip._host_sums import has_float64, has_order, sum_of, sums_of
from gradclip._native import Threads
from tests import exact

KERNELS, ONE = _native.kernels(), Threads(1)
ORDERS = [1.0, 2.0, math.inf]
needs_kernels = pytest.mark.skipif(KERNELS is None, reason="the kernels in C were not built, or are switched off")


def table(*arrays):
    return runs_of([(x.ctypes.data, x.nbytes, code_of(x.dtype.name)) for x in arrays]).table


def normal(size, n=301, dtype=np.float64):
    return (np.random.default_rng(n).standard_normal(n) * size).astype(dtype)


@needs_kernels
@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("size", [1e-320, 1e-300, 1e-160, 1e-30, 1.0, 1e100, 1e154, 1e307])
def test_float64_at_every_magnitude(ord, size):
    arrays = [normal(size), normal(size, 7), np.zeros(0), np.zeros(3)]
    scale, total = sum_of(KERNELS, table(*arrays), ord, ONE)
    right = exact.norm(np.concatenate(arrays).tolist(), ord)
    assert math.isfinite(total)
    assert exact.relative_error(exact.stands_for(scale, total, ord), right) < 1e-14
    scales, totals = sums_of(KERNELS, table(*arrays), ord, ONE)
    for s, t, x in zip(scales, totals, arrays, strict=True):
        assert exact.relative_error(exact.stands_for(s, t, ord), exact.norm(x.tolist(), ord)) < 1e-14


@needs_kernels
@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize(
    ("dtype", "size"), [(np.float32, 1e-44), (np.float32, 3e37), (np.float16, 6e-8), (np.float16, 1e4)]
)
def test_narrow_dtypes_are_read_once(ord, dtype, size):
    x = normal(size, dtype=dtype)
    scale, total = sum_of(KERNELS, table(x), ord, ONE)
    assert scale == 1
    assert exact.relative_error(exact.stands_for(scale, total, ord), exact.norm(x.astype(float).tolist(), ord)) < 1e-14


@needs_kernels
@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_inf_stay(ord, bad):
    x = normal(1e200)
    x[17] = bad
    _, total = sum_of(KERNELS, table(x, normal(1.0)), ord, ONE)
    assert math.isnan(total) if math.isnan(bad) else total == math.inf
    _, totals = sums_of(KERNELS, table(x, normal(1.0)), ord, ONE)
    assert [math.isfinite(t) for t in totals] == [False, True]


@needs_kernels
def test_the_scale_is_a_power_of_two_whose_reciprocal_is_normal():
    for size in (1e-320, 1e-200, 1.0, 1e200, 1e308):
        scale, _ = sum_of(KERNELS, table(np.full(3, size)), 2.0, ONE)
        assert math.frexp(scale)[0] == 0.5
        assert 1 / scale >= 2.0**-1022


@needs_kernels
def test_small_elements_beside_large_ones_are_not_lost():
    """A million squares of 1e-160 underflow; beside one of 1e-150 they are a hundredth of a percent of the sum."""
    x = np.full(1_000_001, 1e-160)
    x[0] = 1e-155
    scale, total = sum_of(KERNELS, table(x), 2.0, ONE)
    right = exact.mpmath.sqrt(exact.mpmath.mpf(1e-155) ** 2 + 1_000_000 * exact.mpmath.mpf(1e-160) ** 2)
    assert exact.relative_error(exact.stands_for(scale, total, 2.0), right) < 1e-14


def test_what_the_kernels_have_sums_for():
    assert all(has_order(order, False) for order in ORDERS)
    assert has_order(2.0, True)
    assert not any(has_order(order, True) for order in (1.0, math.inf))
    assert not any(has_order(order, False) for order in (0.5, 1.5, 3.0))


def test_one_float64_array_makes_the_norm_float64():
    single = np.ones(1, np.float32)
    assert not has_float64(table(single, np.ones(1, np.complex64)))
    assert has_float64(table(single, np.ones(1)))
    assert has_float64(table(np.ones(1, np.complex128)))
