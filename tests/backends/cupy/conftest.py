"""The emulated GPU: compiled once a session, new for each test."""

from pathlib import Path

import pytest

from tests.backends.cupy.emulated import EmulatedRuntime


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(params=[False, True], ids=["float64 sums", "float32 pairs"])
def gpu(request: pytest.FixtureRequest, compiled: Path) -> EmulatedRuntime:
    """The emulated GPU, as a data-centre device (float64 sums) and as a consumer's (pairs of float32)."""
    return EmulatedRuntime(compiled, pairs=request.param)
