"""Dask arrays: with empty chunks, and with chunks of unknown size."""

import math

import dask
import dask.array as da
import numpy as np
import pytest

import gradclip
from tests import exact

DTYPES = ["float16", "float32", "float64", ">f8", "complex64", "complex128"]
ORDERS = [0.5, 1.0, 2.0, 3.0, math.inf]


@pytest.fixture(autouse=True)
def lazy():
    """Whoever computes without being asked fails; and what is computed, on one thread."""

    def refuse(*_, **__):
        raise AssertionError("computed before anything was asked for")

    with dask.config.set(scheduler=refuse):
        yield


def read(*arrays):
    with dask.config.set(scheduler="synchronous"), np.errstate(all="ignore"):
        return dask.compute(*arrays)


def numbers(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else values).astype(dtype)


def known(x):
    """The same array with sizes that were computed: some of its chunks stay empty."""
    with dask.config.set(scheduler="synchronous"):
        return x.copy().compute_chunk_sizes()


def cases(dtype):
    """Arrays by name, each with the values that it will have."""
    line, table = numbers(12, dtype), numbers((8, 3), dtype, seed=1)
    some, rows = np.arange(12) > 9, np.isin(np.arange(8), [3, 7])
    x, y = da.from_array(line, chunks=4), da.from_array(table, chunks=(3, 2))
    none = da.from_array(some & False, chunks=4), da.from_array(rows & False, chunks=3)
    chosen = da.from_array(some, chunks=4), da.from_array(rows, chunks=3)
    unknown = {
        "nothing": (x[none[0]], line[:0]),
        "some chunks empty": (x[chosen[0]], line[some]),
        "no rows": (y[none[1]], table[:0]),
        "some rows": (y[chosen[1]], table[rows]),
        "by value": (y[y.real > 0], table[table.real > 0]),
        "both axes": (y[chosen[1]][:, da.from_array([True, False, True], chunks=2)], table[rows][:, [0, 2]]),
    }
    sized = {f"{name}, sized": (known(array), values) for name, (array, values) in unknown.items()}
    return unknown, {**sized, "empty": (y[:0], table[:0])}


CASES = {dtype: cases(dtype) for dtype in DTYPES}
TURNS = {"some rows", "nothing", "no rows, sized"}  # for float64 all, for the others these
UNKNOWN, SIZED = (
    [(dtype, name) for dtype in DTYPES for name in CASES[dtype][i] if dtype == "float64" or name in TURNS]
    for i in (0, 1)
)


def case(dtype, name):
    return (CASES[dtype][0] | CASES[dtype][1])[name]


def bound(dtype):
    return 1e-13 if np.dtype(dtype).name in ("float64", "complex128") else 2e-6


@pytest.mark.parametrize(("dtype", "name"), UNKNOWN + SIZED)
def test_norms(dtype, name):
    x, values = case(dtype, name)
    y = da.from_array(other := numbers(5, dtype, seed=2), chunks=2)
    alone, both = values.reshape(-1).tolist(), [*values.reshape(-1).tolist(), *other.tolist()]
    norms, right = [gradclip.leaf_norms([y, x])[1]], [exact.norm(alone)]
    for p in ORDERS:
        norms += [gradclip.global_norm([x], ord=p), gradclip.global_norm([x, y], ord=p)]
        norms += [gradclip.norm_partial(y, ord=p).merge(gradclip.norm_partial([x], ord=p)).norm()]
        right += [exact.norm(alone, p), exact.norm(both, p), exact.norm(both, p)]
    for got, want in zip(read(*norms), right, strict=True):
        assert got.shape == ()
        assert exact.relative_error(got, want) < bound(dtype)


PURE = {
    "clip_by_global_norm": lambda x: gradclip.clip_by_global_norm([x], 0.25)[0][0],
    "in order 3": lambda x: gradclip.clip_by_global_norm([x], 0.25, ord=3.0)[0][0],
    "in order inf": lambda x: gradclip.clip_by_global_norm([x], 0.25, ord=math.inf)[0][0],
    "not clipped": lambda x: gradclip.clip_by_global_norm([x], 1e4)[0][0],
    "with a loss scale": lambda x: gradclip.clip_by_global_norm([x], 1e4, scale=3.0)[0][0],
    "zero policy": lambda x: gradclip.clip_by_global_norm([x], 0.25, nonfinite="zero")[0][0],
    "clip_by_norm": lambda x: gradclip.clip_by_norm([x], 0.25)[0],
    "clip_with_norm": lambda x: gradclip.clip_with_norm([x], 0.25, gradclip.norm_partial([x]))[0],
    "clip_by_value": lambda x: gradclip.clip_by_value([x], 0.25)[0],
}
NEED_LENGTHS = {
    "clip_by_rms": lambda x: gradclip.clip_by_rms([x], 0.25)[0],
    "adaptive_grad_clip": lambda x: gradclip.adaptive_grad_clip([x], [x], 0.125)[0],
    "clip_per_example": lambda x: gradclip.clip_per_example([x], 0.25)[0][0],
}
IN_PLACE = {
    "clip_by_global_norm_": lambda x: gradclip.clip_by_global_norm_([x], 0.25),
    "clip_by_norm_": lambda x: gradclip.clip_by_norm_([x], 0.25),
    "clip_by_rms_": lambda x: gradclip.clip_by_rms_([x], 0.25),
    "clip_with_norm_": lambda x: gradclip.clip_with_norm_([x], 0.25, 9.0),
    "clip_by_value_": lambda x: gradclip.clip_by_value_([x], 0.25),
    "adaptive_grad_clip_": lambda x: gradclip.adaptive_grad_clip_([x], [x], 0.125),
}


def clips_of(table, dtype):
    """Those that take a dtype: by value, complex gradients are refused, whatever their size."""
    return [clip for name, clip in table.items() if np.dtype(dtype).kind != "c" or "value" not in name]


@pytest.mark.parametrize(("dtype", "name"), UNKNOWN + SIZED)
def test_pure(dtype, name):
    """What NumPy arrays of the same values become, which other tests hold."""
    x, values = case(dtype, name)
    clips = clips_of(PURE | (NEED_LENGTHS if "sized" in name else {}), dtype)
    got = [clip(x) for clip in clips]
    assert {y.dtype for y in got} == {x.dtype}
    for y, clip in zip(read(*got), clips, strict=True):
        assert_close(y, clip(values), dtype)


@pytest.mark.parametrize(("dtype", "name"), SIZED)
def test_in_place(dtype, name):
    for clip in clips_of(IN_PLACE, dtype):
        x, values = (x.copy() for x in case(dtype, name))
        clip(x)
        clip(values)
        assert_close(read(x)[0], values, dtype)


@pytest.mark.parametrize("name", CASES["float64"][0])
@pytest.mark.parametrize("clip", NEED_LENGTHS | IN_PLACE)
def test_where_lengths_are_needed_and_not_known(name, clip):
    x, values = case("float64", name)
    graph = x.dask
    with pytest.raises(ValueError, match=r"grads\[0\] has shape \(nan.* call compute_chunk_sizes\(\) on it first"):
        (NEED_LENGTHS | IN_PLACE)[clip](x)
    assert x.dask is graph
    np.testing.assert_array_equal(read(x)[0], values)


def test_nothing_is_done_to_the_others_either():
    known, unknown = da.ones(4, chunks=2), case("float64", "some chunks empty")[0]
    for clip in (gradclip.clip_by_global_norm_, gradclip.clip_by_value_):
        with pytest.raises(ValueError, match=r"grads\[1\] has shape \(nan,\).*, or use gradclip\.clip_by_\w+\w\(\)"):
            clip([known, unknown], 0.1)
    np.testing.assert_array_equal(read(known)[0], np.ones(4))
    with pytest.raises(ValueError, match=r"the parameter of grads\[0\] has shape \(nan,\)"):
        gradclip.adaptive_grad_clip([known], [unknown])


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("ord", ORDERS)
def test_nonfinite_elements_show(value, ord):
    x = da.from_array(np.array([1.0, 2.0, value, 4.0, 5.0]), chunks=2)
    x = x[x != 2.0]
    norm = read(gradclip.global_norm([x], ord=ord))[0]
    assert math.isnan(norm) if math.isnan(value) else math.isinf(norm)


@pytest.mark.parametrize("ord", ORDERS)
def test_any_magnitude(ord):
    for size in (1e-300, 1e300):
        x = da.from_array(np.array([0.0, 0.0, 3.0, 4.0]) * size, chunks=2)
        x = x[x > 0]
        assert (
            exact.relative_error(read(gradclip.global_norm([x], ord=ord))[0], exact.norm([3 * size, 4 * size], ord))
            < 1e-13
        )


@pytest.mark.parametrize("chunk", [np.ma.masked_array, lambda x: x[::-1], lambda x: x.astype(">f8")])
def test_chunks_of_another_kind(chunk):
    x = da.from_array(np.arange(12.0), chunks=4).map_blocks(chunk, dtype=float)
    clipped, norm = gradclip.clip_by_global_norm([x], 1.0)
    (values,), norm = read(clipped, norm)
    want = exact.norm(np.arange(12.0).tolist())
    assert exact.relative_error(norm, want) < 1e-14
    assert exact.relative_error(np.linalg.norm(np.asarray(values)), 1.0) < 1e-14


def assert_close(got, want, dtype):
    assert got.shape == want.shape
    eps = 2e-3 if dtype == "float16" else bound(dtype)
    np.testing.assert_allclose(got, want, rtol=eps, atol=eps * 1e-2)
