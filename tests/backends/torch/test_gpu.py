"""PyTorch on a GPU: nothing waits, graphs are captured, results are the CPU's. Skipped where there is none."""

import math

import pytest
import torch

from gradclip.backends.torch import (
    _leaves,
    attach,
    clip_grad_norm_,
    clip_grad_value_,
    get_total_norm,
    grad_norms,
)
from tests.backends.torch.helpers import normal, param

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can use")

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture(params=["Triton", "foreach"], autouse=True)
def ops(request, monkeypatch):
    if request.param == "foreach":
        monkeypatch.setattr(_leaves, "kernels_for", lambda device: None)
    else:
        pytest.importorskip("triton", reason="Triton is not installed")
        from gradclip.backends.torch.ops._triton import TritonOps

        assert isinstance(_leaves.ops_of([torch.ones(1, device="cuda")]), TritonOps)
    return request.param


@pytest.fixture
def no_waiting():
    def without(call):
        call()  # compiles, and fills the tables
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            return call()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return without


def model(dtype, scale=1.0):
    return [param((normal(n, seed=n).double() * scale).to(dtype).cuda()) for n in (0, 3, 64, 100_001)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ord", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1e9])
def test_as_on_the_cpu_without_a_synchronisation(no_waiting, dtype, ord, max_norm):
    params = model(dtype)
    kept = [p.grad.clone() for p in params]

    def call():
        for p, g in zip(params, kept, strict=True):
            p.grad.copy_(g)
        return clip_grad_norm_(params, max_norm, ord)

    norm = no_waiting(call)
    alone = [param(g.cpu()) for g in kept]
    want = clip_grad_norm_(alone, max_norm, ord)
    rtol = 1e-13 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(norm.cpu(), want, rtol=rtol, atol=0)
    eps = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}.get(dtype, 10 * rtol)
    for p, q in zip(params, alone, strict=True):
        torch.testing.assert_close(p.grad.cpu(), q.grad, rtol=eps, atol=1e-7 if dtype == torch.float16 else 0)


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_any_magnitude(scale):
    params = model(torch.float32, scale)
    norm = clip_grad_norm_(params, scale)
    assert float(norm) == pytest.approx(float(clip_grad_norm_(model(torch.float32), 1.0)) * scale, rel=1e-5)
    assert float(get_total_norm([p.grad for p in params])) == pytest.approx(scale, rel=1e-6)


def test_thresholds_and_scales_on_the_device(no_waiting):
    params = model(torch.float32)
    most, scale = torch.tensor(0.5, device="cuda"), torch.tensor(128.0, device="cuda")
    no_waiting(lambda: clip_grad_norm_(params, most, scale=scale, nonfinite="zero"))
    assert float(get_total_norm([p.grad for p in params])) <= 0.5 * (1 + 1e-6)


def test_by_value_without_a_synchronisation(no_waiting):
    params = model(torch.float32)
    no_waiting(lambda: clip_grad_value_(params, 0.25))
    assert max(float(p.grad.abs().max()) for p in params if p.grad.numel()) == 0.25


def test_a_captured_graph_clips_what_it_finds_then():
    grads = [torch.ones(1000, device="cuda"), torch.ones(7, device="cuda")]
    params = [param(g) for g in grads]
    clip_grad_norm_(params, 1.0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        norm = clip_grad_norm_(params, 1.0)
    for value in (3.0, 1e-4, 7.0):
        for g in grads:
            g.fill_(value)
        graph.replay()
        torch.cuda.synchronize()
        assert float(norm) == pytest.approx(value * math.sqrt(1007), rel=1e-6)
        assert float(get_total_norm(grads)) == pytest.approx(min(1.0, value * math.sqrt(1007)), rel=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_in_the_optimizer_without_a_synchronisation(no_waiting, fused):
    params = model(torch.float32)
    optimizer = torch.optim.AdamW(params, lr=torch.tensor(1e-3, device="cuda"), fused=fused, capturable=True)
    clipping = attach(optimizer, max_norm=0.5)
    no_waiting(optimizer.step)
    assert clipping.norm.is_cuda
    assert float(get_total_norm([p.grad for p in params])) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("max_norm", [0.5, 1e9])
def test_a_model_on_several_devices(max_norm):
    """Such as one whose layers do not all fit on the GPU: here the host's memory is the other device."""
    shapes = (3, 64, 100_001, 7)
    params = [param(normal(n, seed=n).to(d)) for n, d in zip(shapes, ("cuda", "cpu", "cuda", "cpu"), strict=True)]
    alone = [param(p.grad.cpu().clone()) for p in params]
    norm, want = clip_grad_norm_(params, max_norm), clip_grad_norm_(alone, max_norm)
    assert norm.is_cuda
    torch.testing.assert_close(norm.cpu(), want, rtol=1e-6, atol=0)
    for p, q in zip(params, alone, strict=True):
        torch.testing.assert_close(p.grad.cpu(), q.grad, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        [x.cpu() for x in grad_norms(dict(enumerate(params))).values()],
        list(grad_norms(dict(enumerate(alone))).values()),
        rtol=1e-6,
        atol=0,
    )
