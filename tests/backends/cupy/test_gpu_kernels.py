"""Where the CUDA kernels cannot be used, a warning says so once, and `gpu_kernels` tells why."""

import warnings

import numpy as np
import pytest

from gradclip._decision import Rule
from gradclip._global import clip_leaves_
from gradclip.backends.cupy import _gpu, _runtime, gpu_kernels
from tests.backends.cupy.emulated import EmulatedRuntime, leaves

REASON = "CompileException: nvrtc: error: invalid value for --std"


@pytest.fixture
def refusing(tmp_path, monkeypatch):
    _gpu._warn.cache_clear()
    gpu = EmulatedRuntime(tmp_path, refused=REASON)
    monkeypatch.setattr(_runtime, "runtime", lambda: gpu)
    return gpu


def test_other_operations_clip_and_a_warning_says_why_once(refusing):
    x = np.array([3.0, 4.0])
    with pytest.warns(RuntimeWarning, match=rf"arrays on GPU 0 are clipped by CuPy's own operations.*: {REASON}"):
        decision = clip_leaves_(leaves(refusing, [x]), Rule(1.0))
    assert decision.norm == 5
    np.testing.assert_allclose(x, [0.6, 0.8])
    assert refusing.launched == []
    with warnings.catch_warnings(action="error"):
        clip_leaves_(leaves(refusing, [x, np.ones(3, np.float32)]), Rule(0.5))


def test_it_warns_for_each_gpu(refusing):
    x, y = np.ones(2), np.ones(3)
    refusing.devices = {x.ctypes.data: 0, y.ctypes.data: 1}
    with pytest.warns(RuntimeWarning) as caught:
        leaves(refusing, [x, y])
    assert [str(w.message)[:21] for w in caught] == ["arrays on GPU 0 are c", "arrays on GPU 1 are c"]


def test_gpu_kernels_tells_why(refusing):
    assert gpu_kernels() == f"CuPy's own operations: {REASON}"
    refusing.refused = None
    assert gpu_kernels(0) == "CUDA"


def test_cupys_own_error_is_the_reason():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)
    gpu = _runtime.Runtime(cupy)
    reason = gpu.refusal(10_000)  # so many GPUs are nowhere
    assert reason is not None
    assert reason.startswith("CUDARuntimeError: cudaError")
    assert gpu.refusal(10_000) is reason, "it is tried once"
