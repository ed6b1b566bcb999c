"""The reduction that gives several sums: what accelerators run, on a CPU and on few elements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradclip.backends.jax import _sums
from tests import exact
from tests.backends.jax.trees import numbers

UNITS = (2.0**-20, 2.0**20)


@pytest.mark.parametrize("ord", [1, 2])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_sums_of_all_units_by_one_read(ord, dtype):
    key = np.random.default_rng(0)
    leaves = [jnp.asarray(key.standard_normal(shape)).astype(dtype) for shape in ((5,), (3, 7), (), (0, 2))]
    units = tuple(map(jnp.float32, UNITS))
    options = {"ord": ord, "dtype": "float32", "axes": ()}
    sums = _sums.totals_at_once(leaves, units, together=True, **options)
    each = _sums.totals_at_once(leaves, units, together=False, **options)
    for i, unit in enumerate((1.0, *UNITS)):
        want = exact.norm(numbers(leaves), ord) ** ord * type(exact.norm([1.0]))(unit) ** ord
        assert float(sums[i]) == pytest.approx(float(want), rel=1e-6)
        assert float(each[i].sum()) == pytest.approx(float(sums[i]), rel=1e-6)


def test_sums_of_examples():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 6)), jnp.float32)
    for got, want in zip(jax.vmap(lambda row: _sums._sums_in_one([row, row * 2]))(x), (x, x * 2), strict=True):
        np.testing.assert_allclose(got, want.sum(1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(64,), (8, 8), (), (0,)])
def test_joined_leaves_are_the_same_elements(shape):
    leaves = [jnp.full(shape, i, dtype) for i in range(40) for dtype in (jnp.float32, jnp.bfloat16)]
    *small, large = _sums.joined([*leaves, jnp.ones(1 << 14)])
    assert len(small) == 6
    assert large.shape == (1 << 14,)
    assert sorted(numbers(small)) == sorted(numbers(leaves))
