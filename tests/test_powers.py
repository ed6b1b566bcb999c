"""Powers, their sums and their roots: exact sums, both ends of the range, derivatives at zero."""

import math

import array_api_strict
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradclip._limits import SUM_BLOCK_NUMEL
from gradclip._powers import reduce_powers, rescale, root, root_of_float, safe_scale
from tests import exact

ORDERS = [0.5, 1.0, 2.0, 3.0, math.inf]


@pytest.mark.parametrize("n", [1, SUM_BLOCK_NUMEL, SUM_BLOCK_NUMEL + 1, 3 * SUM_BLOCK_NUMEL**2 + 7])
@pytest.mark.parametrize("ord", ORDERS)
def test_sums_in_a_namespace_that_adds_one_after_the_other(n, ord):
    values = np.abs(np.random.default_rng(n).standard_normal(n))
    total = reduce_powers(array_api_strict, array_api_strict.asarray(values), ord)
    power = 1.0 if ord == math.inf else ord
    got = exact.stands_for(1.0, float(total), ord)
    assert exact.relative_error(got, exact.norm(values, ord)) < 1e-14 * max(1.0, 1 / power)


def test_sums_along_axes_which_are_kept():
    values = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(reduce_powers(np, values, 2.0, (1,)), [[5.0], [50.0]])
    np.testing.assert_array_equal(reduce_powers(np, values, math.inf, (0,)), [[3.0, 4.0, 5.0]])


@pytest.mark.parametrize("ord", ORDERS)
def test_a_root_of_a_float_is_that_of_an_array(ord):
    for total in (0.0, 5e-324, 1e-300, 0.25, 1.0, 7.0, 1e150, math.inf, math.nan):
        with np.errstate(all="ignore"):
            want = float(root(np, np.asarray(total), ord))
        assert root_of_float(total, ord) == pytest.approx(want, rel=4e-16, nan_ok=True)


@pytest.mark.parametrize("ord", [0.5, 2.0, 3.0])
def test_derivatives_at_zero_are_finite(ord):
    def norm(x):
        return root(jnp, reduce_powers(jnp, jnp.abs(x), ord), ord)

    assert not jax.grad(norm)(jnp.zeros(3)).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_scale_and_its_reciprocal_are_normal_numbers(dtype):
    kind = np.finfo(dtype)
    with np.errstate(all="ignore"):
        found = safe_scale(np, np.asarray([0.0, kind.smallest_subnormal, 1.5, kind.max, math.inf, math.nan], dtype))
    assert found.dtype == dtype
    assert found[2] == 1.5
    for number in (found, 1 / found):
        assert np.all((number >= kind.smallest_normal) & np.isfinite(number))


def test_totals_that_are_nan_or_inf_stay_so_at_any_scale():
    totals = np.asarray([4.0, math.inf, math.nan])
    with np.errstate(all="ignore"):
        scaled = [rescale(np, totals, np.asarray(ratio), 2.0) for ratio in (0.0, 0.5)]
    np.testing.assert_array_equal(scaled, [[0.0, math.inf, math.nan], [1.0, math.inf, math.nan]])
