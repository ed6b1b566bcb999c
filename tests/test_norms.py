"""Norms of NumPy containers, against exact arithmetic."""

import math

import ml_dtypes
import numpy as np
import pytest

import gradclip
from tests import exact

ORDERS = [0.5, 1.0, 1.5, 2.0, 3.0, 7.0, math.inf]
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.complex64, np.complex128]


def bound(dtype: object) -> float:
    return 1e-14 if np.dtype(dtype) in (np.float64, np.complex128) else 1e-6


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_global_norm_is_the_norm_of_all_leaves_laid_end_to_end(dtype, ord):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 50))
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal((3, 50))
    leaves = values.astype(dtype)
    want = exact.norm((v for v in leaves.astype(complex).reshape(-1).tolist()), ord)
    got = gradclip.global_norm({"a": leaves[0], "b": (leaves[1], [leaves[2].reshape(5, 10)])}, ord=ord)
    assert exact.relative_error(got, want) <= bound(dtype) * max(1, 1 / ord)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_is_a_0d_array_of_double_precision_only_where_a_leaf_is(dtype):
    got = gradclip.global_norm([np.ones(3, np.float16), np.ones((2, 2), dtype)])
    assert isinstance(got, np.ndarray)
    assert got.shape == ()
    assert got.dtype == (np.float64 if np.dtype(dtype) in (np.float64, np.complex128) else np.float32)


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize(
    ("dtype", "unit"),
    [
        (np.float32, 1e-38),
        (np.float32, 1e-45),
        (np.float32, 1e20),
        (np.float32, 3e38),
        (np.float64, 5e-324),
        (np.float64, 1e-300),
        (np.float64, 1e200),
        (ml_dtypes.bfloat16, 3e38),
        (ml_dtypes.bfloat16, 1e-40),
        (np.float16, 6e-8),
        (np.float16, 65504.0),
    ],
)
def test_any_magnitude(dtype, unit, ord):
    leaf = np.array([unit], dtype)
    want = exact.norm([float(leaf[0])] * 3, ord)
    partial = gradclip.norm_partial([leaf, leaf.copy(), leaf.copy()], ord=ord)
    assert abs(exact.stands_for(partial.scale, partial.total, ord) - want) <= want * 1e-14
    if dtype is not np.float64 and want > 3.4e38:
        assert partial.norm() == math.inf


@pytest.mark.parametrize("value", [0.1, 1.0, 1 / 3])
def test_biased_rounding_does_not_add_up(value):
    leaf = np.full(1 << 24, value, np.float32)
    assert exact.relative_error(gradclip.global_norm(leaf), abs(float(leaf[0])) * mp_sqrt(1 << 24)) <= 1e-6


def mp_sqrt(n: int) -> exact.mpmath.mpf:
    return exact.mpmath.sqrt(n)


def test_64_million_elements_within_1e_6_of_exact():
    leaf = np.random.default_rng(1).standard_normal(64_000_000, dtype=np.float32)
    squares = (math.fsum(np.square(part, dtype=np.float64)) for part in np.array_split(leaf, 64))
    assert exact.relative_error(gradclip.global_norm([leaf]), exact.mpmath.sqrt(math.fsum(squares))) <= 1e-6


def test_4000_bfloat16_leaves_of_norm_1():
    leaves = [np.ones(1, ml_dtypes.bfloat16) for _ in range(4000)]
    assert float(gradclip.global_norm(leaves)) == pytest.approx(math.sqrt(4000), rel=1e-6)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("step", [1, 2, -1])
def test_views_of_any_strides(order, step):
    leaf = np.asarray(np.random.default_rng(2).standard_normal((40, 30, 20)), order=order)[::step, ::3, ::-step]
    want = exact.norm(leaf.reshape(-1).tolist())
    assert exact.relative_error(gradclip.global_norm(leaf), want) <= 1e-14


def test_a_view_too_long_for_one_chunk_is_read_in_chunks():
    leaf = np.random.default_rng(2).standard_normal((3, 200_000), dtype=np.float32)[:, ::2]
    want = exact.mpmath.sqrt(math.fsum(np.square(leaf, dtype=np.float64).reshape(-1)))
    assert exact.relative_error(gradclip.global_norm(leaf), want) <= 1e-6


def test_empty_containers_and_leaves_have_norm_0():
    for empty in ([], {}, None, [None], np.zeros((0, 3), np.float32), {"a": np.zeros(0), "b": []}):
        assert gradclip.global_norm(empty) == 0
        assert all(gradclip.global_norm(empty, ord=p) == 0 for p in ORDERS)
    assert gradclip.global_norm([np.zeros(0), np.array(3.0), np.zeros((4, 0))], ord=math.inf) == 3


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_inf_show_in_the_norm(bad, ord):
    got = gradclip.global_norm([np.ones(3), np.array([1.0, bad]), np.array([1e300])], ord=ord)
    assert math.isnan(got) if math.isnan(bad) else got == math.inf


def test_the_same_array_counts_once_and_so_does_a_view_of_all_of_it():
    x = np.ones(4)
    assert gradclip.global_norm([x, {"tied": x}, x[:], x.reshape(4)]) == 2
    assert gradclip.global_norm([x, x.copy()]) == pytest.approx(math.sqrt(8))
    assert gradclip.global_norm([x, x[:2]]) == pytest.approx(math.sqrt(6)), "another leaf, though it shares memory"


def test_leaf_norms_keep_the_container():
    grads = {"w": np.array([3.0, 4.0], np.float32), "b": None, "n": [np.zeros((2, 0)), np.array(-7.0)]}
    got = gradclip.leaf_norms(grads)
    assert got == {"w": 5, "b": None, "n": [0, 7]}
    assert got["w"].dtype == np.float32
    assert got["n"][1].dtype == np.float64
    assert all(isinstance(x, np.ndarray) for x in (got["w"], *got["n"]))


@pytest.mark.parametrize("ord", ORDERS)
def test_leaf_norms_see_leaves_whose_squares_leave_the_range(ord):
    leaves = [np.float32([3e20]), np.float32([3e-30]), np.zeros(3, np.float32), np.ones(1, np.float32)]
    got = gradclip.leaf_norms(leaves, ord=ord)
    for norm, leaf in zip(got, leaves, strict=True):
        assert exact.relative_error(norm, exact.norm(leaf.tolist(), ord)) <= 1e-7


def test_numpy_scalars_are_0d_arrays():
    assert gradclip.global_norm([np.float32(3.0), np.float64(4.0)]) == 5
