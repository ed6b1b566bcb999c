"""What happens on a machine that has no GPU, or no CuPy."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from gradclip.backends import cupy as adapter
from gradclip.backends.cupy import _runtime


@pytest.fixture(autouse=True)
def _no_memory():
    _runtime.runtime.cache_clear()
    yield
    _runtime.runtime.cache_clear()


def pretend(monkeypatch, module):
    def load(name):
        if isinstance(module, Exception):
            raise module
        return module

    monkeypatch.setattr(_runtime, "import_module", load)


def test_importing_it_imports_no_cupy():
    code = "import sys, gradclip.backends.cupy; assert 'cupy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_cupy(monkeypatch):
    pretend(monkeypatch, ImportError("No module named 'cupy'"))
    with pytest.raises(RuntimeError, match=r"cannot import CuPy .* expected CuPy and an NVIDIA GPU; pip install"):
        adapter.clip_by_global_norm_([np.ones(3)], 1.0)


def _fails():
    raise OSError("cudaErrorInsufficientDriver")


@pytest.mark.parametrize(("count", "why"), [(_fails, "cudaErrorInsufficientDriver"), (lambda: 0, "there is none")])
@pytest.mark.parametrize("name", [name for name in adapter.__all__ if name.islower()])
def test_without_a_gpu(monkeypatch, name, count, why):
    pretend(monkeypatch, SimpleNamespace(cuda=SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count))))
    more = {"clip_with_norm": (1.0, 2.0), "clip_with_norm_": (1.0, 2.0)}.get(name, (1.0,))
    more = () if "norm" in name and "clip" not in name else more
    more = (np.ones(3),) if "adaptive" in name else more
    arguments = () if name == "gpu_kernels" else ([np.ones(3)], *more)
    with pytest.raises(RuntimeError, match=rf"found no GPU \({why}\), expected an NVIDIA GPU and its driver"):
        getattr(adapter, name)(*arguments)


def test_arguments_are_checked_all_the_same(monkeypatch):
    with pytest.raises(ValueError, match="max_norm=-1"):
        adapter.clip_by_global_norm_([np.ones(3)], -1)
