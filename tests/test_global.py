"""Clipping by the global norm, on NumPy."""

import math
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

import gradclip
from gradclip import _native
from tests import exact

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
EPS = {np.float16: 2.0**-11, ml_dtypes.bfloat16: 2.0**-8, np.float32: 2.0**-23, np.float64: 2.0**-52}


def some(dtype, n=1000, seed=0):
    return np.random.default_rng(seed).standard_normal(n).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_norm", [1e-7, 1e-3, 0.7, 3.0])
def test_every_element_is_multiplied_by_one_coefficient(dtype, max_norm):
    grads = [some(dtype), some(dtype, 7, 1).reshape(1, 7)]
    clipped, norm = gradclip.clip_by_global_norm(grads, max_norm)
    values = [float(v) for g in grads for v in g.reshape(-1)]
    assert exact.relative_error(norm, exact.norm(values)) <= 1e-6
    tiny = float(ml_dtypes.finfo(dtype).smallest_subnormal)
    # Without the kernels, quotient, factor and product round by half a unit in the last place each, float64 too.
    bound = EPS[dtype] * (1.01 if dtype != np.float64 or _native.kernels() else 1.5)
    for got, want in zip((v for g in clipped for v in g.reshape(-1)), exact.clipped(values, max_norm), strict=True):
        assert abs(float(got) - want) <= abs(want) * bound + tiny


def test_in_place_does_what_the_pure_function_does():
    for dtype in (*DTYPES, np.complex64, np.complex128):
        pure = [some(dtype), some(np.float32)]
        mine = [g.copy() for g in pure]
        clipped, norm = gradclip.clip_by_global_norm(pure, 0.5)
        assert gradclip.clip_by_global_norm_(mine, 0.5) == norm
        for a, b in zip(clipped, mine, strict=True):
            np.testing.assert_allclose(a.astype(complex), b.astype(complex), rtol=2 * EPS.get(dtype, 1e-6))


@pytest.mark.parametrize(
    ("value", "max_norm"),
    [
        (1e20, 1.0),
        (3e38, 1.0),
        (3e38, 1e-30),
        (1e-30, 1e-33),
        (1e-38, 1e-40),
        (1e-45, 0.0),
        (1e20, 1e-37),
        (3e38, 3e38),
    ],
)
def test_float32_at_any_magnitude(value, max_norm):
    grads = np.float32([value, value, -value / 2, 0.0])
    for clipped in (gradclip.clip_by_global_norm(grads, max_norm)[0], _in_place(grads.copy(), max_norm)):
        for got, want in zip(clipped, exact.clipped(grads.tolist(), max_norm), strict=True):
            assert abs(float(got) - want) <= abs(want) * 2e-7 + 2.0**-149


@pytest.mark.parametrize(("value", "max_norm"), [(1e300, 1.0), (1.5e308, 1e-300), (1e-300, 1e-303), (5e-324, 0.0)])
def test_float64_at_any_magnitude(value, max_norm):
    grads = np.array([value, value, -value / 2, 0.0])
    for clipped in (gradclip.clip_by_global_norm(grads, max_norm)[0], _in_place(grads.copy(), max_norm)):
        for got, want in zip(clipped, exact.clipped(grads.tolist(), max_norm), strict=True):
            assert abs(exact.mpmath.mpf(float(got)) - want) <= abs(want) * 4e-16 + exact.mpmath.mpf(5e-324)


def _in_place(grads, max_norm):
    gradclip.clip_by_global_norm_(grads, max_norm)
    return grads


def test_float16_whose_norm_exceeds_float16():
    clipped, norm = gradclip.clip_by_global_norm(np.full(4, 60000, np.float16), 1e-3)
    assert norm == 120000
    np.testing.assert_allclose(clipped.astype(float), 5e-4, rtol=1e-3)


def test_what_is_not_clipped_comes_back_as_it_is():
    grads = {"a": some(np.float32), "b": np.float16([-0.0, 6e-8])}
    clipped, _ = gradclip.clip_by_global_norm(grads, 1e9)
    assert clipped is not grads
    assert all(clipped[k] is grads[k] for k in grads)


def test_exactly_at_the_threshold_nothing_changes():
    grads = np.array([3.0, 4.0])
    assert gradclip.clip_by_global_norm(grads, 5.0)[0] is grads


@pytest.mark.parametrize("max_norm", [None, math.inf, np.inf, np.array(np.inf)])
@pytest.mark.parametrize("value", [1.0, math.nan, math.inf])
def test_no_threshold_no_change(value, max_norm):
    grads = np.array([1.0, value])
    clipped, norm = gradclip.clip_by_global_norm(grads, max_norm)
    assert clipped is grads
    assert norm == pytest.approx(math.hypot(1.0, value), nan_ok=True)


def test_a_threshold_of_zero_gives_zeros():
    clipped, norm = gradclip.clip_by_global_norm([some(np.float32), np.float16([1])], 0.0)
    assert norm > 0
    assert all((g == 0).all() for g in clipped)


def test_zero_in_zero_out():
    for max_norm in (0.0, 1.0):
        clipped, norm = gradclip.clip_by_global_norm([np.zeros(3, np.float32), np.zeros((0, 2))], max_norm)
        assert norm == 0
        assert (clipped[0] == 0).all()


def test_the_input_of_a_pure_function_is_never_touched():
    grads = [some(np.float32), some(ml_dtypes.bfloat16, 100_000)]
    before = [g.tobytes() for g in grads]
    for g in grads:
        g.setflags(write=False)
    clipped, _ = gradclip.clip_by_global_norm(grads, 0.1)
    assert [g.tobytes() for g in grads] == before
    assert not any(np.shares_memory(a, b) for a, b in zip(grads, clipped, strict=True))


@pytest.mark.parametrize("nonfinite", ["propagate", "zero"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("max_norm", [1.0, 1e9])
def test_nonfinite_gradients(bad, nonfinite, max_norm):
    grads = [np.float32([1.0, bad]), np.array([2.0])]
    clipped, norm = gradclip.clip_by_global_norm(grads, max_norm, nonfinite=nonfinite)
    mine = [g.copy() for g in grads]
    gradclip.clip_by_global_norm_(mine, max_norm, nonfinite=nonfinite)
    for out in (clipped, mine):
        flat = np.concatenate(out)
        if nonfinite == "zero":
            assert (flat == 0).all()
        else:
            np.testing.assert_array_equal(flat, [math.nan] * 3 if math.isnan(bad) else [0, math.nan, 0])
    assert math.isnan(norm) if math.isnan(bad) else norm == math.inf


def test_nonfinite_error_names_the_leaf_and_writes_nothing():
    grads = {"ok": np.ones(3), "layers": [np.array([1.0]), np.array([math.nan, 1.0])]}
    for clip in (gradclip.clip_by_global_norm, gradclip.clip_by_global_norm_):
        with pytest.raises(
            FloatingPointError, match=r"grads\['layers'\]\[1\] is NaN or inf .*1 of 3.*nonfinite=\"zero\""
        ):
            clip(grads, 0.1, nonfinite="error")
    assert (grads["ok"] == 1).all()
    gradclip.clip_by_global_norm(grads["ok"], 0.1, nonfinite="error")


def test_finite_gradients_whose_norm_overflows_are_not_nonfinite():
    grads = np.float32([3e38, 3e38])
    for nonfinite in ("propagate", "error", "zero"):
        clipped, norm = gradclip.clip_by_global_norm(grads, 1.0, nonfinite=nonfinite)
        assert norm == math.inf
        np.testing.assert_allclose(clipped, math.sqrt(0.5), rtol=1e-6)


@pytest.mark.parametrize("scale", [2.0**16, 3.0, 1e-3, np.float32(4)])
@pytest.mark.parametrize("max_norm", [1.0, 1e9, None])
@pytest.mark.parametrize("ord", [1.0, 2.0, math.inf])
def test_loss_scaling_in_the_same_pass(scale, max_norm, ord):
    true = [some(np.float32), some(np.float32, 5, 3)]
    want, norm = gradclip.clip_by_global_norm(true, max_norm, ord=ord)
    clipped, reported = gradclip.clip_by_global_norm(
        [g * np.float32(scale) for g in true], max_norm, ord=ord, scale=scale
    )
    assert reported == pytest.approx(norm, rel=1e-6)
    for a, b in zip(clipped, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_eps_gives_what_torch_and_others_compute():
    grads = np.array([3.0, 4.0])
    clipped, norm = gradclip.clip_by_global_norm(grads, 1e-3, eps=0.5)
    assert norm == 5
    np.testing.assert_allclose(clipped, grads * 1e-3 / 5.5)
    np.testing.assert_allclose(gradclip.clip_by_global_norm(grads, 5.2, eps=0.5)[0], grads * 5.2 / 5.5)


def test_tied_leaves_are_clipped_once_and_stay_tied():
    x = np.ones(4)
    clipped, norm = gradclip.clip_by_global_norm({"a": x, "b": [x, x[:]]}, 1.0)
    assert norm == 2
    assert clipped["a"] is clipped["b"][0] is clipped["b"][1]
    gradclip.clip_by_global_norm_([x, x, x[:]], 1.0)
    assert (x == 0.5).all()


def test_in_place_keeps_storage_views_and_strides():
    base = np.arange(24.0).reshape(4, 6)
    leaf = base[::2, ::3]
    outside = base.copy()
    gradclip.clip_by_global_norm_([leaf, np.asfortranarray(np.ones((3, 5)))], 1.0)
    assert np.shares_memory(leaf, base)
    assert leaf.strides == (96, 24)
    outside[::2, ::3] = leaf
    np.testing.assert_array_equal(base, outside)
    assert np.linalg.norm(leaf) < 1


def test_the_pure_function_keeps_shape_dtype_and_0d():
    grads = [np.array(3.0, np.float32), np.ones((2, 0)), np.float16([[4]]), np.float32(2)]
    clipped, _ = gradclip.clip_by_global_norm(grads, 0.1)
    for a, b in zip(grads, clipped, strict=True):
        assert isinstance(b, np.ndarray)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.complex64])
@pytest.mark.parametrize("max_norm", [1e12, 1.0])
def test_no_copy_of_the_gradients(dtype, max_norm):
    grads = [np.ones((1000, 2000), dtype) for _ in range(4)]
    tracemalloc.start()
    gradclip.clip_by_global_norm_(grads, max_norm)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3e6 < grads[0].nbytes * 4


def test_the_same_input_gives_the_same_bits():
    grads = [some(np.float32, 100_003, seed) for seed in range(5)]
    norms = {gradclip.global_norm([g.copy() for g in grads]).tobytes() for _ in range(10)}
    assert len(norms) == 1
