"""The Triton kernels on a GPU, where nothing may wait. Skipped where there is none."""

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can use")


@pytest.fixture
def kernels():
    pytest.importorskip("triton", reason="Triton is not installed")
    from gradclip.backends.torch import _triton  # imports Triton

    return _triton


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_norm_and_scale_without_a_synchronisation(kernels, dtype):
    xs = [torch.randn(n, device="cuda").to(dtype) for n in (0, 3, 100_001)]
    before = [x.clone() for x in xs]
    half, one = (
        torch.full((), 0.5, dtype=torch.float64, device="cuda"),
        torch.ones((), dtype=torch.float64, device="cuda"),
    )
    yes = torch.ones((), dtype=torch.bool, device="cuda")
    kernels.partial(xs, 2.0)  # compiles
    kernels.scale_(xs, one, one, yes)
    torch.cuda.set_sync_debug_mode("error")
    try:
        pair = kernels.partial(xs, 2.0)
        kernels.scale_(xs, one, half, yes)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    exact = torch.cat([x.double() for x in before]).norm()
    torch.testing.assert_close(pair[0] * pair[1].sqrt(), exact, rtol=1e-7, atol=0)
    assert all(torch.equal(x, b * 0.5) for x, b in zip(xs, before, strict=True))
