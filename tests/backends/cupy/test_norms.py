"""The arithmetic of the norm kernels, run on the CPU, against exact oracles."""

import math

import numpy as np
import pytest

from tests.backends.cupy.emulated import DTYPES, EmulatedRuntime, leaves, needs_compiler
from tests.exact import norm as exact_norm
from tests.exact import relative_error, stands_for

pytestmark = needs_compiler
ORDERS = [0.5, 1.0, 1.5, 2.0, 3.0, 7.0, math.inf]
FLOATS = list(DTYPES)


def tolerance(dtype: str) -> float:
    return 1e-14 if DTYPES[dtype] == np.float64 else 1e-7


def values(shape, dtype: str, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(DTYPES[dtype])


def stood_for(partial):
    return stands_for(partial.scale, partial.total, partial.ord)


def error(partial, exact) -> float:
    """Return the relative error of what a partial stands for, which may be beyond float64's range."""
    got = stood_for(partial)
    return 0.0 if got == exact else float(abs(got - exact) / exact)


def check(gpu: EmulatedRuntime, arrays: list[np.ndarray], ord: float = 2.0, tol: float | None = None) -> None:
    tree = leaves(gpu, arrays)
    partial = tree.ops.partial(tree.arrays, ord)
    flat = [complex(v) if np.iscomplexobj(x) else float(v) for x in arrays for v in x.reshape(-1)]
    tol = tol or max(tolerance(str(x.dtype)) if str(x.dtype) in DTYPES else 1e-7 for x in arrays)
    assert error(partial, exact_norm(flat, ord)) <= tol
    shown = partial.norm()
    assert shown.dtype == (np.float64 if any(x.dtype in (np.float64, np.complex128) for x in arrays) else np.float32)
    assert relative_error(float(shown), exact_norm(flat, ord)) <= max(tol, 2.0**-23)


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_dtype_and_order(gpu, dtype, ord):
    check(gpu, [values(n, dtype, seed=n) for n in (0, 1, 7, 64, 1000)], ord)


@pytest.mark.parametrize("offset", range(9))
@pytest.mark.parametrize("dtype", FLOATS)
def test_unaligned_heads_and_tails(gpu, dtype, offset):
    whole = values(1500, dtype, seed=offset)
    check(gpu, [whole[offset : offset + n] for n in (0, 1, 5, 300)] + [whole[offset + 400 :]])


def test_many_tiny_leaves_and_a_large_one(gpu):
    arrays = [values(i % 5, "float32", seed=i) for i in range(300)] + [values(40_000, "float32")]
    check(gpu, arrays)
    assert [name for name, _, _ in gpu.launched] == ["partials_two", "finish"], "one launch for all leaves"
    assert gpu.launched[0][2] == 240 + 10, "a block for each leaf that is not empty, and for each 16 KiB"


def test_mixed_dtypes_take_a_launch_each(gpu):
    check(gpu, [values(33, dtype, seed=7) for dtype in FLOATS], tol=1e-7)
    assert sorted(code for name, code, _ in gpu.launched if name == "partials_two") == [16, 17, 32, 64]


MAGNITUDES = {
    "float16": [6e-8, 1e-5, 1.0, 6e4],
    "bfloat16": [1e-39, 1e-38, 1e-20, 1e20, 3e38],
    "float32": [1e-44, 1e-38, 1e-25, 1e-15, 1.0, 1e15, 1e25, 1e38],
    "float64": [5e-324, 1e-320, 1e-300, 1e-160, 1e-150, 1.0, 1e150, 1e160, 1e300],
}


@pytest.mark.parametrize("ord", [0.5, 1.0, 2.0, 3.0, 20.0, math.inf])
@pytest.mark.parametrize(("dtype", "size"), [(d, s) for d, sizes in MAGNITUDES.items() for s in sizes])
def test_any_magnitude(gpu, dtype, size, ord):
    shape = np.array([1.0, -1.0, 0.5, 0.75, 0.0] * 5)
    x = (shape * size).astype(DTYPES[dtype])
    tree = leaves(gpu, [x])
    partial = tree.ops.partial(tree.arrays, ord)
    assert error(partial, exact_norm(map(float, x), ord)) <= tolerance(dtype)


@pytest.mark.parametrize("ord", [1.0, 2.0, 3.0, math.inf])
def test_pieces_of_very_different_magnitude_merge(gpu, ord):
    arrays = [np.array([x], np.float64) for x in (1e-300, 0.0, 3e-170, 4e-170)]
    check(gpu, [*arrays, np.zeros(0)], ord)
    check(gpu, [*arrays, np.array([1e200]), np.array([1.0])], ord)


@pytest.mark.parametrize("dtype", FLOATS)
def test_zeros_and_nothing(gpu, dtype):
    for arrays in ([np.zeros(100, DTYPES[dtype])], [np.zeros(0, DTYPES[dtype])], [np.zeros((0, 3), DTYPES[dtype])] * 2):
        tree = leaves(gpu, arrays)
        partial = tree.ops.partial(tree.arrays, 2.0)
        assert partial.total == 0
        assert np.isfinite(partial.scale)
        assert partial.scale > 0
        assert partial.norm() == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("ord", [0.5, 1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_and_inf_spread(gpu, dtype, ord, bad):
    x = values(300, dtype)
    x[123] = bad
    tree = leaves(gpu, [values(5, dtype), x])
    partial = tree.ops.partial(tree.arrays, ord)
    assert not np.isfinite(partial.total)
    assert np.isnan(partial.norm()) == np.isnan(bad)
    each = tree.ops.partials(tree.arrays, ord).total
    assert np.isfinite(each[0])
    assert np.isnan(each[1]) == np.isnan(bad)


def test_a_norm_that_is_not_representable_is_inf_and_its_partial_is_right(gpu):
    x = np.full(16, np.finfo(np.float64).max)
    tree = leaves(gpu, [x])
    partial = tree.ops.partial(tree.arrays, 2.0)
    assert partial.norm() == math.inf
    assert np.isfinite(partial.total)
    assert error(partial, exact_norm(map(float, x))) <= 1e-14
    narrow = leaves(gpu, [np.full(16, np.finfo(np.float32).max)])
    assert narrow.ops.partial(narrow.arrays, 2.0).norm() == math.inf


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_partial_for_each_leaf(gpu, dtype):
    arrays = [values(n, dtype, seed=n) for n in (3, 0, 40_000, 129)]
    tree = leaves(gpu, arrays)
    batch = tree.ops.partials(tree.arrays, 2.0)
    assert batch.total.shape == (4,)
    for i, x in enumerate(arrays):
        exact = exact_norm(map(float, x))
        assert relative_error(stands_for(batch.scale[i], batch.total[i], 2.0), exact) <= tolerance(dtype)


def test_complex(gpu):
    rng = np.random.default_rng(1)
    for dtype in (np.complex64, np.complex128):
        x = (rng.normal(size=(7, 9)) + 1j * rng.normal(size=(7, 9))).astype(dtype)
        check(gpu, [x, x[::2, ::3], x.T], tol=1e-7 if dtype == np.complex64 else 1e-14)


VIEWS = {
    "fortran": lambda x: np.asfortranarray(x),
    "transposed": lambda x: x.transpose(2, 0, 1),
    "reversed": lambda x: x[::-1, :, ::-1],
    "columns": lambda x: x[:, 1::2, :3],
    "one axis left": lambda x: x[:, 2, 1],
    "broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_leaves_that_are_not_contiguous(gpu, dtype, view):
    check(gpu, [VIEWS[view](values((6, 7, 5), dtype))])


@pytest.mark.parametrize("dtype", FLOATS)
def test_same_bits_whatever_the_order_of_the_threads(gpu, dtype):
    arrays = [values(n, dtype, seed=n) for n in (5, 3000, 40_000)]

    def bits() -> bytes:
        tree = leaves(gpu, arrays)
        whole, each = tree.ops.partial(tree.arrays, 2.0), tree.ops.partials(tree.arrays, 2.0)
        return b"".join(np.asarray(x).tobytes() for x in (whole.scale, whole.total, each.scale, each.total))

    first = bits()
    assert bits() == first
    gpu.order(descending=True)
    try:
        assert bits() == first, "a barrier is missing"
    finally:
        gpu.order(descending=False)


def test_blocks_of_256_threads_as_on_a_gpu(compiled):
    for block in (32, 256):
        check(EmulatedRuntime(compiled, block=block), [values(5000, "float32"), values(3, "float32")])


def test_equal_numbers_whose_rounding_is_biased(gpu):
    """Adding 0.1² forty thousand times in float32 is wrong by 1e-4; here by less than 1e-7."""
    check(gpu, [np.full(40_000, 0.1, np.float32)])


def test_devices_merge_on_the_first(gpu):
    arrays = [values(50, "float64", seed=i, scale=10.0 ** (100 * i)) for i in range(3)]
    gpu.devices = {arrays[1].ctypes.data: 1, arrays[2].ctypes.data: 2}
    check(gpu, arrays, tol=1e-14)
    assert gpu.copies == 2
    tree = leaves(gpu, arrays)
    batch = tree.ops.partials(tree.arrays, 2.0)
    for i, x in enumerate(arrays):
        assert relative_error(stands_for(batch.scale[i], batch.total[i], 2.0), exact_norm(map(float, x))) <= 1e-14


def test_the_table_is_kept_while_the_arrays_stay_the_same(gpu):
    arrays = [values(50, "float32", seed=i) for i in range(3)]
    for _ in range(3):
        check(gpu, arrays)
    assert gpu.uploads == 1
    check(gpu, [*arrays[:2], values(50, "float32")])
    assert gpu.uploads == 2
