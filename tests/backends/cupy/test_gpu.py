"""On a GPU: results equal to exact ones, nothing that waits, graphs, streams, devices. Skipped where there is none."""

import math
from typing import Any

import numpy as np
import pytest

from tests.exact import norm as exact_norm
from tests.exact import relative_error


def _cupy() -> tuple[Any, str]:
    try:
        import cupy  # only here it is known whether there is one

        return (cupy, "") if cupy.cuda.runtime.getDeviceCount() else (None, "no GPU")
    except Exception as e:
        return None, f"no GPU that CuPy can use: {type(e).__name__}: {e}"


cp, WHY = _cupy()
pytestmark = pytest.mark.skipif(cp is None, reason=WHY)

from gradclip._limits import KEPT_TABLES  # noqa: E402
from gradclip.backends import cupy as gc  # noqa: E402
from gradclip.backends.cupy import _runtime  # noqa: E402

DTYPES = ["float16", "float32", "float64"]


def randn(shape, dtype="float32", seed=0, scale=1.0):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(dtype)


@pytest.mark.parametrize("ord", [0.5, 1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_norms(dtype, ord):
    host = [randn(n, dtype, n) for n in (0, 1, 7, 5000)] + [randn((30, 40), dtype)[:, ::3], randn(100, dtype)[3:]]
    flat = [float(v) for x in host for v in x.reshape(-1)]
    got = gc.global_norm([cp.asarray(x) for x in host], ord=ord)
    assert relative_error(float(got), exact_norm(flat, ord)) <= (1e-14 if dtype == "float64" else 1e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_range(scale):
    host = randn(3000, "float64", scale=scale)
    assert relative_error(float(gc.global_norm(cp.asarray(host))), exact_norm(map(float, host))) <= 1e-14


@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_in_place_and_pure(dtype):
    host = [randn(n, dtype, n) for n in (3, 100_000)]
    grads = [cp.asarray(x) for x in host]
    out, _ = gc.clip_by_global_norm(grads, 0.5)
    assert all((cp.asnumpy(g) == h).all() for g, h in zip(grads, host, strict=True))
    gc.clip_by_global_norm_(grads, 0.5)
    assert all((g == o).all() for g, o in zip(grads, out, strict=True))
    assert float(gc.global_norm(grads)) == pytest.approx(0.5, rel=2e-3 if dtype == "float16" else 1e-6)
    before = [g.copy() for g in grads]
    gc.clip_by_global_norm_(grads, 1e3)
    assert all((g == b).all() for g, b in zip(grads, before, strict=True))
    gc.clip_by_value_(grads, 1e-3)
    assert max(float(abs(g).max()) for g in grads) <= 1.001e-3


def test_a_graph_clips_what_lies_in_its_arrays_then():
    x = cp.asarray(randn(10_000))
    gc.clip_by_global_norm_(x, 1.0)  # compiles: that cannot be captured
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        norm = gc.clip_by_global_norm_(x, 1.0)
        graph = stream.end_capture()
        x[...] = 3.0
        graph.launch(stream)
        stream.synchronize()
    assert float(norm) == pytest.approx(300.0)
    assert float(gc.global_norm(x)) == pytest.approx(1.0)


def test_the_memory_of_a_graph_goes_to_nobody_else():
    """Its kernels write partial norms whenever it runs: never into an array that was made since."""
    x = cp.asarray(randn(500_000))
    limit = cp.asarray(np.float64(1.0))
    gc.clip_by_global_norm_(x, limit, nonfinite="zero")
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        norm = gc.clip_by_global_norm_(x, limit, nonfinite="zero")
        graph = stream.end_capture()
        others = [cp.full(n, 7, np.uint8) for n in [1, 16, 48, 512, 1024, 4096, 1 << 14, 1 << 16] * 20]
        for size in (3.0, 1e-6):
            x[...] = size
            graph.launch(stream)
            stream.synchronize()
            assert float(norm) == pytest.approx(size * math.sqrt(500_000))
            assert float(gc.global_norm(x)) == pytest.approx(min(1.0, size * math.sqrt(500_000)))
        assert all(bool((other == 7).all()) for other in others)


def test_a_table_is_kept_for_each_set_of_arrays_and_stream():
    gpu, x, y = _runtime.runtime(), cp.ones(3), cp.ones(4)
    here, there = gpu.places([x]), gpu.places([y])
    first = gpu.table(here, here)
    assert gpu.table(gpu.places([x]), here) is first
    assert gpu.table(there, there) is not first
    with cp.cuda.Stream(non_blocking=True) as stream:
        assert gpu.table(here, here) is not first
        stream.synchronize()
    assert gpu.table(here, here) is first


def test_tables_do_not_pile_up():
    gpu, arrays = _runtime.runtime(), [cp.ones(3) for _ in range(KEPT_TABLES + 5)]
    for x in arrays:
        gpu.table(gpu.places([x]), gpu.places([x]))
    assert len(gpu._tables) == KEPT_TABLES
    cp.cuda.Device().synchronize()
    gpu.table(gpu.places([arrays[0]]), gpu.places([arrays[0]]))
    assert gpu._staged == []


@pytest.mark.parametrize("ord", [1.0, 2.0])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_as_a_device_whose_float64_is_slow(monkeypatch, dtype, ord):
    monkeypatch.setattr(_runtime, "CHEAP_FLOAT64_RATIO", 0)
    monkeypatch.setattr(_runtime.runtime(), "_functions", {})
    for scale in (1.0,) if dtype == "float16" else (1e-30, 1.0, 1e30):
        host = randn(100_003, dtype, scale=scale)
        x = cp.asarray(host)
        total = exact_norm(map(float, host), ord)
        assert relative_error(float(gc.clip_by_global_norm_(x, float(total) / 2, ord=ord)), total) <= 1e-6
        assert relative_error(float(gc.global_norm(x, ord=ord)), total / 2) <= (1e-3 if dtype == "float16" else 1e-6)


def test_many_streams():
    streams = [cp.cuda.Stream(non_blocking=True) for _ in range(4)]
    arrays = [cp.asarray(randn(100_000, seed=i)) for i in range(4)]
    cp.cuda.Device().synchronize()
    for x, stream in zip(arrays, streams, strict=True):
        with stream:
            for _ in range(10):
                gc.clip_by_global_norm_(x, 1.0)
    cp.cuda.Device().synchronize()
    assert all(float(gc.global_norm(x)) == pytest.approx(1.0, rel=1e-6) for x in arrays)


def test_same_bits_every_time():
    arrays = [cp.asarray(randn(n, seed=n)) for n in (10, 1_000_003)]
    assert len({float(gc.global_norm(arrays, ord=2.0)) for _ in range(20)}) == 1


def test_more_than_two_to_the_31_elements():
    free = cp.cuda.runtime.memGetInfo()[0]
    if free < 6 << 30:
        pytest.skip("needs 6 GB of GPU memory")
    x = cp.ones((1 << 31) + 5, cp.float16)
    assert float(gc.global_norm(x, ord=1.0)) == float(np.float32((1 << 31) + 5))
    gc.clip_by_value_(x, 0.5)
    assert float(x[-1]) == 0.5


def test_torch_tensors_by_dlpack():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no GPU")
    x = torch.tensor([3.0, 4.0], device="cuda")
    gc.clip_by_global_norm_({"x": x}, 1.0)
    torch.testing.assert_close(x.cpu(), torch.tensor([0.6, 0.8]))


def test_several_devices():
    if cp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two GPUs")
    arrays = []
    for device in (0, 1):
        with cp.cuda.Device(device):
            arrays.append(cp.asarray(np.float32([3.0 + device])))
    with cp.cuda.Device(0):
        assert float(gc.clip_by_global_norm_(arrays, 1.0)) == 5.0
    assert [round(float(x[0]), 6) for x in arrays] == [0.6, 0.8]
