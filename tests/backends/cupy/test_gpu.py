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

from gradclip.backends import cupy as gc  # noqa: E402

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
