"""`ArrayOps`, the operations for any namespace, against exact arithmetic, on leaves in one piece and in chunks."""

import math

import numpy as np
import pytest

from gradclip import _array_ops
from gradclip import _namespace as ns
from gradclip._array_ops import ArrayOps, limited, scaled
from gradclip._coefficient import Coefficient
from gradclip._decision import Rule
from tests import exact

strict = pytest.importorskip("array_api_strict")
ORDERS = [0.5, 1.0, 2.0, 3.0, math.inf]
DEVICES = ["CPU_DEVICE", "no_float64"]


@pytest.fixture(params=[None, 1, 7], ids=["whole", "chunks of 1", "chunks of 7"], autouse=True)
def chunk(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(_array_ops, "HOST_CHUNK_NUMEL", request.param)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def as_strict(values, device):
    return strict.asarray(values, device=strict.Device(device))


def ops_for(x):
    return ArrayOps(ns.namespace([x]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("size", [1.0, 1e-38, 1e37])
def test_partial_norms_of_each_leaf_and_of_all(device, ord, size):
    values = [
        numbers(*shape, seed=i) * np.float32(size) for i, shape in enumerate([(), (0, 3), (13,), (3, 5), (2, 1, 9)])
    ]
    leaves = [as_strict(x, device) for x in values]
    ops = ops_for(leaves[0])
    whole, each = ops.partial(leaves, ord), ops.partials(leaves, ord)
    right = exact.norm(np.concatenate([x.ravel() for x in values]).tolist(), ord)
    assert exact.relative_error(exact.stands_for(float(whole.scale), float(whole.total), ord), right) < 1e-6
    for i, x in enumerate(values):
        found = exact.stands_for(float(each.scale[i]), float(each.total[i]), ord)
        assert exact.relative_error(found, exact.norm(x.ravel().tolist(), ord)) < 1e-6


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 2), (0, 1, 2)])
def test_partial_norms_along_axes_keep_them(ord, axes):
    x = numbers(3, 4, 5) * np.float32(1e30)
    norms = ArrayOps(np).partial_along(x, ord, axes).norm()
    assert norms.shape == tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    kept = [i for i in range(3) if i not in axes]
    for slice_ in np.moveaxis(x, kept, range(len(kept))).reshape(-1, math.prod(x.shape[i] for i in axes)):
        want = float(exact.norm(slice_.tolist(), ord))
        assert np.isclose(norms, want, rtol=1e-6).sum() == 1, "each slice is one of the norms"


def test_partial_norms_of_empty_slices_are_zero():
    partial = ArrayOps(np).partial_along(np.zeros((2, 0), np.float32), 2.0, (1,))
    assert partial.norm().tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
def test_scaling_returns_new_arrays_rounded_once(dtype):
    x = (numbers(4, 6) * (1 + 1j)).astype(dtype) if dtype == np.complex64 else numbers(4, 6).astype(dtype)
    before = x.copy()
    (y,) = ArrayOps(np).scale([x], [Coefficient(3.0, 1.0, True)])
    assert y.dtype == dtype
    assert np.array_equal(x, before)
    wide = before.astype(complex if dtype == np.complex64 else float) * (1.0 / 3.0)
    assert np.array_equal(y, wide.astype(dtype))


def test_scaling_in_place_writes_changed_leaves_only():
    frozen, x, empty = numbers(9), numbers(9), np.zeros((0, 2), np.float32)
    frozen.setflags(write=False)
    before, same = x.copy(), Coefficient(1.0, 1.0, False)
    ArrayOps(np).scale_([frozen, x, empty], [same, Coefficient(2.0, 1.0, True), same])
    assert np.array_equal(x, before / 2)
    (kept,) = ArrayOps(np).scale([frozen], [same])
    assert kept is frozen


def test_a_coefficient_for_each_row_is_cut_as_the_leaf_is():
    x = numbers(5, 6)
    factor = np.asarray([[1.0], [0.5], [0.25], [3.0], [1.0]])
    c = Coefficient(np.ones_like(factor), factor, factor != 1)
    want = (x.astype(float) * factor).astype(np.float32)
    (got,) = ArrayOps(np).scale([x], [c])
    assert np.array_equal(got, want)
    ArrayOps(np).scale_([x], [c])
    assert np.array_equal(x, want)


def test_leaves_become_zero_also_if_they_are_nan():
    x = np.asarray([1.0, math.nan, math.inf])
    ArrayOps(np).scale_([x], [Coefficient(1.0, 1.0, True, True)])
    assert x.tolist() == [0, 0, 0]


@pytest.mark.parametrize("shape", [(6, 5), (1, 3), (6, 0), (0, 3), (4,)])
def test_the_scaled_sum_over_the_leading_axis(shape):
    x = numbers(*shape)
    factor = np.linspace(0.25, 2, shape[0])
    got = ArrayOps(np).scaled_sum(x, Coefficient(np.ones_like(factor), factor, np.ones_like(factor, bool)))
    want = (x.astype(float) * factor.reshape(-1, *[1] * (len(shape) - 1))).sum(axis=0)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("in_place", [False, True])
def test_clamping_keeps_nan_and_moves_inf_to_the_bounds(in_place):
    x = np.asarray([math.nan, math.inf, -math.inf, 0.5, -7.0, 7.0, -0.0, 0.0], np.float32)
    (y,) = ([x.copy()],) if in_place else (ArrayOps(np).clamp([x], -1.0, 2.0),)
    if in_place:
        ArrayOps(np).clamp_(y, -1.0, 2.0)
    np.testing.assert_array_equal(y[0], np.float32([math.nan, 2, -1, 0.5, -1, 2, -0.0, 0]))
    assert np.signbit(y[0][6]), "-0.0 is within the bounds"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bounds_beyond_a_dtype_s_range_change_no_finite_element(dtype):
    largest = float(np.finfo(dtype).max)
    x = np.asarray([largest, -largest, math.inf], dtype)
    (y,) = ArrayOps(np).clamp([x], -1e308 if dtype != np.float64 else -largest, 1e308)
    assert np.isfinite(y[:2]).all()
    assert limited(1e308, np.dtype(dtype)) == min(largest, 1e308)
    assert limited(math.inf, np.dtype(dtype)) == math.inf


def test_unchanged_elements_of_a_batch_are_not_multiplied():
    x, changed = np.asarray([math.inf, 2.0]), np.asarray([False, True])
    with np.errstate(invalid="ignore"):  # inf · 0, which is not used
        y = scaled(np, x, Coefficient(np.ones(2), np.asarray([0.0, 0.5]), changed))
    assert y.tolist() == [math.inf, 1.0]


def test_the_decision_is_that_of_the_leaves_laid_end_to_end():
    decision = ArrayOps(np).decide([np.asarray([3.0], np.float32), np.asarray([[4.0]])], Rule(2.0))
    assert (float(decision.norm), float(decision.coefficient.number)) == (5.0, 0.4)
    assert (bool(decision.clipped), bool(decision.finite)) == (True, True)
    assert decision.norm.dtype == np.float64


def test_nothing_is_known_of_shared_memory():
    assert ArrayOps(np).apart([np.ones(2)]) is False
