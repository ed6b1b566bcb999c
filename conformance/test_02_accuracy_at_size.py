"""Clause 2, continued: 2^26 and 2^30 elements of float32, on NumPy only."""

import numpy as np
import pytest

from gradclip.conformance.checks import assert_norm
from gradclip.conformance.oracles import EXACT, norm, sum_of_squares
from gradclip.conformance.targets import Target


@pytest.mark.needs("numpy", "large")
def test_sixty_four_million(target: Target) -> None:
    """2^26 random elements of float32."""
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(1 << 23, dtype=np.float32) for _ in range(8)]
    right = EXACT.sqrt(sum(map(_squares, grads)))
    assert_norm(float(target.api.global_norm(grads)), right, "float32")


@pytest.mark.needs("numpy", "large")
def test_a_billion(target: Target) -> None:
    """2^30 elements of 0.1, in memory for one of them: every rounding of the sum goes the same way."""
    one = np.asarray([0.1], np.float32)
    grads = np.broadcast_to(one, 1 << 30)
    assert_norm(float(target.api.global_norm(grads)), norm([one.astype(float)]) * 2**15, "float32")


def _squares(x: np.ndarray) -> object:
    total = sum_of_squares(x.astype(np.float64))
    return EXACT.mpf(total.numerator) / total.denominator
