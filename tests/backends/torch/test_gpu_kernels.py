"""Where the kernels in Triton cannot be used, a warning says so once, and `gpu_kernels` tells why."""

import pytest
import torch

from gradclip.backends.torch import _gpu, gpu_kernels

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@NO_GPU
def test_a_gpu_that_cannot_be_used():
    _gpu.kernels_for.cache_clear()
    device = torch.device("cuda")
    with pytest.warns(RuntimeWarning, match=r"gradients on cuda are clipped by PyTorch's own operations.*: \w+: ."):
        assert _gpu.kernels_for(device) is None
    assert _gpu.kernels_for(device) is None, "it warns once"
    assert gpu_kernels().startswith("PyTorch's own operations: ")


def test_other_devices():
    assert _gpu.kernels_for(torch.device("meta")) is None
    assert gpu_kernels("meta") == "PyTorch's own operations: there are kernels for cuda and xpu only"
