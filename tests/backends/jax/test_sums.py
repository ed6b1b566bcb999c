"""Sums of squares of small leaves that are joined into one array."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradclip.backends.jax import _sums
from tests.backends.jax.trees import numbers


@pytest.mark.parametrize("shape", [(64,), (8, 8), (), (0,)])
def test_joined_leaves_are_the_same_elements(shape):
    leaves = [jnp.full(shape, i, dtype) for i in range(40) for dtype in (jnp.float32, jnp.bfloat16)]
    *small, large = _sums.joined([*leaves, jnp.ones(1 << 14)])
    assert len(small) == 6
    assert large.shape == (1 << 14,)
    assert sorted(numbers(small)) == sorted(numbers(leaves))


def test_no_more_than_4_mib_are_joined():
    leaves = [jnp.zeros(4000)] * 1000
    arrays = _sums.joined(leaves)
    joined = [x for x in arrays if x.size > 4000]
    assert sum(x.size for x in joined) <= 1 << 20
    assert sum(x.size for x in arrays) == 4_000_000
    assert max(x.size for x in joined) == 16 * 4000
    np.testing.assert_array_equal(arrays[0], 0)
