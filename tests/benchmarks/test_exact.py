"""The oracle of the accuracy table is exact."""

import math
from fractions import Fraction

import numpy as np
import pytest

from benchmarks.exact import exact_norm, relative_error, wide_norm


def _by_fractions(x) -> float:
    total = sum(Fraction(float(v)) ** 2 for v in x)
    return math.isqrt(int(total * 2**400)) / 2.0**200


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_exact_norm_is_that_of_fractions(dtype):
    x = np.random.default_rng(0).standard_normal(1000).astype(dtype)
    assert relative_error(exact_norm([x[:300], x[300:].reshape(7, 100)]), _by_fractions(x)) < 3e-16
    assert relative_error(wide_norm([x]), _by_fractions(x)) < 1e-14


@pytest.mark.parametrize("magnitude", [1e20, 1e-30])
def test_float32_of_any_magnitude(magnitude):
    x = np.full(4, magnitude, np.float32)
    assert relative_error(exact_norm([x]), 2 * float(x[0])) < 3e-16


def test_relative_error():
    assert relative_error(1.5, 1.0) == 0.5
    assert relative_error(0.0, 0.0) == 0.0
    assert relative_error(0.0, 2.0) == 1.0
    assert relative_error(math.inf, 1.0) == math.inf
    assert relative_error(math.nan, 1.0) == math.inf
