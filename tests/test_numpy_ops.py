"""The operations for NumPy give the results of the general ones, at any magnitude and memory layout."""

import ml_dtypes
import numpy as np
import pytest

import gradclip
from gradclip._array_ops import ArrayOps
from gradclip._coefficient import coefficient
from gradclip._namespace import namespace
from gradclip._numpy_ops import numpy_ops
from tests import exact

XP = namespace([np.zeros(())])
FAST, GENERAL = numpy_ops(), ArrayOps(XP)
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.complex64, np.complex128]


def leaves(dtype, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(), (1,), (511,), (512,), (513,), (0, 3), (33, 17), (3, 70_000)]
    return [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_agree(dtype):
    some = [*leaves(dtype), leaves(dtype, 1)[-1].T, leaves(dtype, 2)[-1][:, ::3]]
    for p in (1.0, 2.0, np.inf):
        assert FAST.partial(some, p).norm() == pytest.approx(GENERAL.partial(some, p).norm(), rel=1e-6)
        np.testing.assert_allclose(FAST.partials(some, p).norm(), GENERAL.partials(some, p).norm(), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_norm", [1e9, 1.0])
def test_scaling_agrees(dtype, max_norm):
    for x in leaves(dtype):
        c = coefficient(GENERAL.partial([x], 2.0), max_norm)
        want = GENERAL.scale([x], [c])[0]
        mine = x.copy()
        FAST.scale_([mine], [c])
        eps = 2 * float(ml_dtypes.finfo(dtype).eps)
        for got in (FAST.scale([x], [c])[0], mine):
            assert got.dtype == dtype
            np.testing.assert_allclose(got.astype(complex), want.astype(complex), rtol=eps)


def test_many_small_leaves_of_two_dtypes_are_laid_end_to_end():
    some = [np.full(n % 700, 0.1, (np.float32, np.float64)[n % 2]) for n in range(1500)]
    assert FAST.partial(some, 2.0).norm() == pytest.approx(float(GENERAL.partial(some, 2.0).norm()), rel=1e-7)


@pytest.mark.parametrize(("small", "large"), [(1e-30, 1e-29), (1e-25, 1e20), (1e20, 1e21)])
def test_squares_outside_of_float32_are_noticed(small, large):
    some = [np.full(1000, small, np.float32), np.full(3, large, np.float32)]
    want = np.sqrt(1000 * np.float64(some[0][0]) ** 2 + 3 * np.float64(some[1][0]) ** 2)
    with np.errstate(over="ignore"):  # the public functions do so
        partial = FAST.partial(some, 2.0)
    assert float(partial.scale) * float(partial.total) ** 0.5 == pytest.approx(float(want), rel=1e-7)


def test_a_whole_model_of_zeros():
    assert FAST.partial([np.zeros(1000, np.float32), np.zeros(3)], 2.0).norm() == 0


@pytest.mark.parametrize(
    ("large", "max_norm", "ord"), [(1.6e308, 2.0**-6, 1.0), (1e150, 1e-300, 2.0), (1e-150, 1e-305, 1.0)]
)
def test_coefficients_that_float64_does_not_hold(large, max_norm, ord):
    """Found by the property tests: the quotient of threshold and norm is subnormal, or zero, and the product is not."""
    grads = [np.array([large, large / 8, 1.0 if large > 1 else 0.0])]
    want = exact.clipped(grads[0].tolist(), max_norm, ord)
    for clipped in (
        gradclip.clip_by_global_norm(grads, max_norm, ord=ord)[0],
        gradclip.clip_by_norm(grads, max_norm, ord=ord),
    ):
        for got, right in zip(clipped[0].tolist(), want, strict=True):
            assert abs(got - float(right)) <= 1e-14 * abs(float(right)) + 5e-324
