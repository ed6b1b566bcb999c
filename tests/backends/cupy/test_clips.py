"""The coefficient, scaling and clamping on the CPU: against exact oracles, and against the core's own coefficient."""

import math
from itertools import product

import numpy as np
import pytest

from gradclip._by_norm import clip_each, clip_each_
from gradclip._by_value import clamp_leaves, clamp_leaves_
from gradclip._coefficient import Coefficient, coefficient
from gradclip._decision import Rule, unscaled_norm
from gradclip._global import clip_leaves, clip_leaves_, clip_leaves_with_
from gradclip._partial import NormPartial
from tests.backends.cupy.emulated import DTYPES, EmulatedRuntime, leaves, needs_compiler
from tests.exact import clipped as exact_clipped

pytestmark = needs_compiler
FLOATS = list(DTYPES)
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-23, "float64": 2.0**-51}


def values(shape, dtype: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(DTYPES[dtype])


def rule(max_norm=1.0, ord=2.0, nonfinite="propagate", scale=1.0, eps=0.0) -> Rule:
    return Rule(max_norm, ord, nonfinite, scale, eps)


def clip(gpu, tree, r):
    clipped, decision = clip_leaves(leaves(gpu, tree), r)
    return clipped, decision.norm


def clip_(gpu, tree, r):
    return clip_leaves_(leaves(gpu, tree), r).norm


def assert_clipped(before, after, max_norm: float, dtype: str, ord: float = 2.0) -> None:
    exact = exact_clipped([float(v) for x in before for v in x.reshape(-1)], max_norm, ord)
    got = [float(v) for x in after for v in x.reshape(-1)]
    least = float(np.finfo(np.float32).tiny if dtype == "bfloat16" else np.finfo(DTYPES[dtype]).tiny)
    for g, e in zip(got, exact, strict=True):
        assert abs(g - float(e)) <= ROUNDING[dtype] * max(abs(float(e)), least)


@pytest.mark.parametrize("ord", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_clipped_pure_and_in_place(gpu, dtype, ord):
    arrays = [values(n, dtype, seed=n) for n in (3, 0, 1000)] + [values((4, 6), dtype)[:, ::2], values((3, 4), dtype).T]
    before = [x.copy() for x in arrays]
    out, norm = clip(gpu, arrays, rule(0.5, ord))
    for x, b in zip(arrays, before, strict=True):
        assert np.array_equal(x, b)
    assert_clipped(before, out, 0.5, dtype, ord)
    assert clip_(gpu, arrays, rule(0.5, ord)) == norm
    for x, y in zip(arrays, out, strict=True):
        assert x.tobytes() == y.tobytes()
        assert x.dtype == y.dtype


@pytest.mark.parametrize("dtype", FLOATS)
def test_not_clipped_is_bit_for_bit(gpu, dtype):
    x = values(500, dtype)
    x[:4] = [0.0, -0.0, float(np.finfo(np.float32).tiny if dtype == "bfloat16" else np.finfo(x.dtype).tiny) / 4, 1.0]
    bits = x.tobytes()
    out, _ = clip(gpu, [x], rule(1e6))
    assert out[0].tobytes() == bits
    assert out[0] is not x
    x.flags.writeable = False  # the kernel would write all the same: it has the address
    clip_leaves_(leaves(gpu, [x]), rule(1e6))
    assert x.tobytes() == bits


def test_launches(gpu):
    arrays = [values(50, "float32", seed=i) for i in range(20)]
    clip_(gpu, arrays, rule())
    assert [name for name, _, _ in gpu.launched] == ["partials_two", "finish", "scale"]
    assert gpu.uploads == 1


@pytest.mark.parametrize("offset", range(9))
@pytest.mark.parametrize("dtype", FLOATS)
def test_unaligned(gpu, dtype, offset):
    whole = values(900, dtype)
    part = whole[offset : offset + 700 - 3 * offset]
    before = whole.copy()
    out, _ = clip(gpu, [part], rule(0.25))
    assert_clipped([part], out, 0.25, dtype)
    clip_(gpu, [part], rule(0.25))
    assert part.tobytes() == out[0].tobytes()
    untouched = np.ones(900, bool)
    untouched[offset : offset + 700 - 3 * offset] = False
    assert np.array_equal(whole[untouched], before[untouched]), "only the view is written"


@pytest.mark.parametrize(
    ("dtype", "size", "max_norm"),
    [("float32", 1e38, 1e-7), ("float32", 1e-38, 1e-40), ("float64", 1e308, 1e-7), ("float64", 1e308, 1e308),
     ("float64", 1e-300, 1e-305), ("bfloat16", 3e38, 1.0), ("float16", 6e4, 1e-3), ("float32", 1e30, 1e-8)],
)  # fmt: skip
def test_coefficients_out_of_range(gpu, dtype, size, max_norm):
    x = (np.array([1.0, -0.5, 0.25, 0.0, 0.75]) * size).astype(DTYPES[dtype])
    out, _ = clip(gpu, [x], rule(max_norm))
    exact = exact_clipped(map(float, x), max_norm)
    info = np.finfo(np.float32) if dtype == "bfloat16" else np.finfo(x.dtype)
    for g, e in zip(out[0], exact, strict=True):
        assert abs(float(g) - float(e)) <= max(ROUNDING[dtype] * abs(float(e)), float(info.smallest_subnormal))


def test_max_norm_of_zero_inf_and_none(gpu):
    x = values(100, "float32")
    assert not clip(gpu, [x], rule(0.0))[0][0].any()
    for no_limit in (math.inf, None):
        assert clip(gpu, [x], rule(no_limit))[0][0].tobytes() == x.tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nonfinite(gpu, dtype, bad):
    x = values(100, dtype)
    x[7] = bad
    out, norm = clip(gpu, [x], rule())
    assert np.isnan(norm) == np.isnan(bad)
    assert np.isnan(out[0]).all() if np.isnan(bad) else (np.isnan(out[0][7]) and not out[0][:7].any())
    out, norm = clip(gpu, [x], rule(nonfinite="zero"))
    assert not out[0].any()
    assert not np.isfinite(norm)
    before = x.tobytes()
    with pytest.raises(FloatingPointError, match=r"grads\[0\] is NaN or inf"):
        clip_(gpu, [x], rule(nonfinite="error"))
    assert x.tobytes() == before


def test_the_device_computes_the_cores_coefficient(gpu):
    """The one formula that the core has too: side by side over all cases, out-of-range ones included."""
    partials = [(1.0, 25.0), (2.0, 0.0), (1e300, 4.0), (1e-300, 4.0), (1.0, math.inf), (1.0, math.nan), (3.0, 1e-20)]
    limits = [None, 0.0, 1e-300, 0.5, 5.0, 1e300, math.inf]
    for (s, t), limit, eps, loss, p, zero in product(
        partials, limits, [0.0, 1e-6], [1.0, 1024.0], [2.0, 3.0], [False, True]
    ):
        parts, policy = np.array([s, t], np.float64), "zero" if zero else "propagate"
        got = leaves(gpu, [np.ones(1)]).ops._finish(0, parts, 1, np.float64, rule(limit, p, policy, loss, eps)).decision
        if t == 0:
            s = 1.0  # the scale of a zero says nothing
        with np.errstate(all="ignore"):
            known = NormPartial(np.asarray(s), np.asarray(t), p, np.float64)
            core = coefficient(known, limit, eps=eps, loss_scale=loss, nonfinite=policy)
            norm = unscaled_norm(known, loss)
        np.testing.assert_allclose(got.norm, norm, rtol=1e-15)
        for name in ("divisor", "factor"):
            np.testing.assert_allclose(getattr(got.coefficient, name), getattr(core, name), rtol=4e-16)
        assert got.coefficient.changed == core.changed
        assert (got.coefficient.zeroed is None) == (core.zeroed is None)
        assert core.zeroed is None or got.coefficient.zeroed == core.zeroed


def test_numbers_that_are_on_the_device(gpu):
    tree, given = leaves(gpu, [np.array([3.0, 4.0])]), rule()
    given.max_norm, given.loss_scale = np.asarray(np.float32(2.0)), np.asarray(2.0)
    result = tree.decide(given)
    assert result.coefficient.changed
    assert float(result.coefficient.factor) / float(result.coefficient.divisor) == pytest.approx(2.0 / 5.0)


def test_numbers_on_the_device_that_are_negative_are_taken_as_zero(gpu):
    x = np.array([3.0, 4.0])
    for max_norm, eps, want in ((-2.0, 0.0, 0.0), (1.0, -10.0, 0.2), (-2.0, -10.0, 0.0), (math.nan, 0.0, math.nan)):
        given = rule()
        given.max_norm, given.eps = np.asarray(max_norm), np.asarray(eps)
        c = leaves(gpu, [x]).decide(given).coefficient
        assert float(c.factor) / float(c.divisor) == pytest.approx(want, nan_ok=True)
        assert c.changed


def test_loss_scale_in_the_same_pass(gpu):
    x = values(100, "float32") * 1024
    small = x.astype(np.float64) / 1024
    out, norm = clip(gpu, [x], rule(1e3, scale=1024.0))
    assert float(norm) == pytest.approx(np.linalg.norm(small), rel=1e-6)
    np.testing.assert_allclose(out[0], small, rtol=2e-7)
    out, _ = clip(gpu, [x], rule(0.5, scale=1024.0))
    np.testing.assert_allclose(out[0], small * 0.5 / np.linalg.norm(small), rtol=4e-7)


@pytest.mark.parametrize("dtype", FLOATS)
def test_each_leaf_by_its_own_norm(gpu, dtype):
    arrays = [values(n, dtype, seed=n) * f for n, f in ((3, 10), (500, 1), (4, 0.01), (0, 1))]
    arrays = [x.astype(DTYPES[dtype]) for x in arrays]
    out = clip_each(leaves(gpu, arrays), 0.5, 2.0)
    for x, y in zip(arrays, out, strict=True):
        assert_clipped([x], [y], 0.5, dtype)
    assert [name for name, _, _ in gpu.launched] == ["partials_two", "merge", "scale"]
    clip_each_(leaves(gpu, arrays), 0.5, 2.0, "clip_by_norm")
    for x, y in zip(arrays, out, strict=True):
        assert x.tobytes() == y.tobytes()


def test_coefficients_that_belong_to_no_batch(gpu):
    arrays = [np.ones(3, np.float32), np.ones(4, np.float32)]
    tree = leaves(gpu, arrays)
    halves = [Coefficient(np.asarray(1.0), np.asarray(f), np.asarray(f != 1)) for f in (0.5, 1.0)]
    tree.ops.scale_(tree.arrays, halves[::-1])
    assert arrays[0].tolist() == [1.0] * 3
    assert arrays[1].tolist() == [0.5] * 4
    batch = Coefficient(np.ones(2), np.array([0.25, 0.5]), np.array([True, True]))
    tree.ops.scale_(tree.arrays, [batch[1, ...], batch[0, ...]])
    assert arrays[0].tolist() == [0.5] * 3
    assert arrays[1].tolist() == [0.125] * 4


@pytest.mark.parametrize("dtype", FLOATS)
def test_by_value(gpu, dtype):
    x = values(1000, dtype)
    x[:4] = [math.nan, math.inf, -math.inf, -0.0]
    expected = np.where(x < -0.5, x.dtype.type(-0.5), np.where(x > 0.75, x.dtype.type(0.75), x)).astype(x.dtype)
    out = clamp_leaves(leaves(gpu, [x, x[1::3]]), -0.5, 0.75)
    assert out[0].tobytes() == expected.tobytes()
    assert out[1].tobytes() == expected[1::3].tobytes()
    assert [name for name, _, _ in gpu.launched] == ["clamp"]
    clamp_leaves_(leaves(gpu, [x]), -0.5, 0.75)
    assert x.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
def test_bounds_beyond_the_dtype(gpu, dtype):
    x = np.array([math.inf, -math.inf, 1.0, math.nan], DTYPES[dtype])
    out = clamp_leaves(leaves(gpu, [x]), -1e308, 1e308)[0]
    largest = (
        1e308
        if dtype == "float64"
        else {"float16": 65504.0, "float32": float(np.finfo(np.float32).max)}.get(dtype, float.fromhex("0x1.fep127"))
    )
    assert [float(v) for v in out[:3]] == [largest, -largest, 1.0]
    out = clamp_leaves(leaves(gpu, [x]), -math.inf, math.inf)[0]
    assert [float(v) for v in out[:3]] == [math.inf, -math.inf, 1.0]


def test_complex_leaves(gpu):
    x = np.array([[3 + 4j, 0], [0, 1j]], np.complex64)
    out, norm = clip(gpu, [x, x.T[:1]], rule(1.0))
    assert float(norm) == pytest.approx(math.sqrt(26 + 25), rel=1e-6)
    np.testing.assert_allclose(out[0], x / math.sqrt(51), rtol=1e-6)


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_several_devices(gpu, order):
    arrays = [values(30, "float32", seed=i) for i in range(4)]
    gpu.devices = {arrays[1].ctypes.data: 1, arrays[3].ctypes.data: 1}
    before = [x.copy() for x in arrays]
    out, _ = clip(gpu, arrays, rule(0.5))
    assert_clipped(before, out, 0.5, "float32")
    clip_(gpu, arrays if order == "ascending" else arrays[::-1], rule(0.5))
    assert_clipped(before, arrays, 0.5, "float32")
    each = clip_each(leaves(gpu, before), 0.25, 2.0)
    for x, y in zip(before, each, strict=True):
        assert_clipped([x], [y], 0.25, "float32")


def test_by_a_norm_that_is_known(gpu):
    x = np.array([3.0, 4.0], np.float32)
    clip_leaves_with_(leaves(gpu, [x]), 1.0, 10.0)
    np.testing.assert_allclose(x, [0.3, 0.4], rtol=1e-7)


def test_blocks_of_256_threads(compiled):
    gpu = EmulatedRuntime(compiled, block=256)
    x = values(5000, "float16")
    before = x.copy()
    clip_(gpu, [x], rule(0.5))
    assert_clipped([before], [x], 0.5, "float16")
