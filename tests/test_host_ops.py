"""`HostOps` on NumPy's arrays: the kernels in C, and the general operations for what the kernels cannot do."""

import math

import numpy as np
import pytest

from gradclip import _native
from gradclip._coefficient import Coefficient
from gradclip._decision import Rule
from gradclip._numpy_ops import numpy_ops
from tests import exact

ORDERS = [1.0, 2.0, 3.0, math.inf]


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def mixed():
    """Leaves that the kernels read, and others between them: with gaps, of integers as wide as bytes, reversed."""
    swapped = normal(5, seed=3).astype(np.dtype(np.float32).newbyteorder())
    return [normal(3, 4), normal(6, 8, seed=1)[:, ::2], normal(7, seed=2, dtype=np.float64), swapped, np.zeros((0, 2))]


@pytest.mark.parametrize("ord", ORDERS)
def test_leaves_that_the_kernels_cannot_read_keep_their_positions(ord):
    leaves, ops = mixed(), numpy_ops()
    norms = ops.partials(leaves, ord).norm()
    assert norms.dtype == np.float64
    for got, x in zip(norms.tolist(), leaves, strict=True):
        assert exact.relative_error(got, exact.norm(x.astype(float).ravel().tolist(), ord)) < 1e-14
    whole = np.concatenate([x.astype(float).ravel() for x in leaves])
    assert exact.relative_error(float(ops.partial(leaves, ord).norm()), exact.norm(whole.tolist(), ord)) < 1e-14


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("kind", ["shared", "each"])
def test_every_leaf_is_multiplied_once_and_rounded_once(in_place, kind):
    leaves, ops = mixed(), numpy_ops()
    factors = [0.3] * len(leaves) if kind == "shared" else [0.1 * (i + 1) for i in range(len(leaves))]
    coefficients = [Coefficient(1.0, f, True) for f in factors]
    want = [(x.astype(float) * f).astype(x.dtype) for x, f in zip(leaves, factors, strict=True)]
    before = [x.copy() for x in leaves]
    out = leaves if in_place else ops.scale(leaves, coefficients)
    if in_place:
        ops.scale_(leaves, coefficients)
    for got, right in zip(out, want, strict=True):
        assert np.array_equal(got, right)
        assert got.dtype == right.dtype
    assert in_place or all(np.array_equal(x, y) for x, y in zip(leaves, before, strict=True))


def test_what_does_not_change_is_the_same_object_and_is_not_written():
    frozen, x = normal(4), normal(4, seed=1)
    frozen.setflags(write=False)
    same, half = Coefficient(1.0, 1.0, False), Coefficient(2.0, 1.0, True)
    first, second = numpy_ops().scale([frozen, x], [same, half])
    assert first is frozen
    assert np.array_equal(second, x / 2)
    numpy_ops().scale_([frozen], [same])


def test_new_arrays_keep_the_order_of_axes():
    x = normal(3, 5, 7).transpose(2, 0, 1)
    (y,) = numpy_ops().scale([x], [Coefficient(2.0, 1.0, True)])
    assert y.strides == x.strides
    assert np.array_equal(y, x / 2)


def test_a_zeroed_leaf_is_all_zeros_also_where_it_was_nan():
    leaves = [np.asarray([math.nan, 1.0]), np.asarray([[math.inf]], np.float32)]
    numpy_ops().scale_(leaves, [Coefficient(1.0, 1.0, True, True)] * 2)
    assert [x.tolist() for x in leaves] == [[0, 0], [[0]]]


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("axes", [(1,), (0,), (0, 1), (1, 2), (2,)])
def test_norms_of_slices(ord, axes):
    x = normal(3, 4, 5)
    norms = numpy_ops().partial_along(x, ord, axes).norm()
    want = np.linalg.norm if ord == 2 else None
    assert norms.shape == tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    right = np.max(abs(x), axis=axes, keepdims=True) if ord == math.inf else None
    if right is None:
        right = (abs(x.astype(float)) ** ord).sum(axis=axes, keepdims=True) ** (1 / ord)
    np.testing.assert_allclose(norms, right, rtol=1e-6)
    assert want is None or np.isclose(want(norms), want(x))


def test_a_coefficient_for_each_row():
    x, factor = normal(4, 6), np.asarray([[0.5], [1.0], [3.0], [0.0]])
    c = Coefficient(np.ones_like(factor), factor, factor != 1)
    want = (x.astype(float) * factor).astype(np.float32)
    (y,) = numpy_ops().scale([x], [c])
    assert np.array_equal(y, want)
    numpy_ops().scale_([x], [c])
    assert np.array_equal(x, want)


@pytest.mark.parametrize("in_place", [False, True])
def test_bounds(in_place):
    leaves = mixed()
    leaves[0][0, :3] = math.nan, math.inf, -math.inf
    want = [np.clip(x, -0.5, 0.25) for x in leaves]
    if in_place:
        numpy_ops().clamp_(leaves, -0.5, 0.25)
    out = leaves if in_place else numpy_ops().clamp(leaves, -0.5, 0.25)
    for got, right in zip(out, want, strict=True):
        np.testing.assert_array_equal(got, right)


def test_no_leaves():
    decision = numpy_ops().decide([], Rule(0.0))
    assert (float(decision.norm), bool(decision.clipped), bool(decision.finite)) == (0.0, False, True)


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_the_decision(ord, scale):
    leaves = mixed()
    values = np.concatenate([x.astype(float).ravel() for x in leaves]).tolist()
    norm = exact.norm(values, ord) / exact.mpmath.mpf(scale)
    decision = numpy_ops().decide(leaves, Rule(float(norm) / 3, ord, "propagate", scale))
    assert exact.relative_error(float(decision.norm), norm) < 1e-14
    want = exact.mpmath.mpf(float(norm) / 3) / norm / exact.mpmath.mpf(scale)
    assert exact.relative_error(float(decision.coefficient.number), want) < 1e-14
    assert decision.clipped


@pytest.mark.skipif(_native.kernels() is None, reason="the kernels in C were not built, or are switched off")
def test_shared_memory_is_known_by_address():
    x = normal(8)
    assert numpy_ops().apart([x[:4], x[4:]])
    assert not numpy_ops().apart([x[:5], x[4:]])
