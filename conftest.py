"""What pytest must not collect for its doctests, how the tests share what JAX compiled, and where they let go of it."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

collect_ignore = [
    "gradclip/conformance",  # a link to conformance/, which would be run twice
    "tests/backends/cupy/on_cpu.py",  # puts the CPU in the place of a GPU for the whole process
    "tests/backends/jax/on_eight_devices.py",  # runs in a process of its own, with eight devices
]

if find_spec("triton") is None:  # it comes with PyTorch's GPU builds
    collect_ignore += [f"gradclip/backends/torch/ops/{name}.py" for name in ("_launch", "_triton", "_triton_kernels")]

LONGEST = (
    "tests/conformance/test_mutants.py",
    "tests/backends/torch/ops/test_triton.py",
    "tests/backends/cupy/test_contract.py",
    "tests/test_packaging.py",
    "tests/backends/jax/test_derivatives.py",
    "tests/backends/torch/test_traced.py",
)
"""Files whose few tests take longest. They run first, so that no worker starts one when the others are done."""

# JAX keeps what it compiled on disk, in a folder of the run's own for each process: two that use one folder may read
# what the other has half written. Processes that a test starts use its folder, for it waits for them.
_COMPILED = tempfile.mkdtemp(prefix="gradclip-jax-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_unconfigure() -> None:
    """Remove what JAX compiled."""
    shutil.rmtree(_COMPILED, ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files of `LONGEST` first."""

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(config.rootpath).as_posix() if item.path.is_relative_to(config.rootpath) else ""
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(autouse=True, scope="module")
def compiled_programs() -> Iterator[None]:
    """Let JAX forget the programs of a file after it: they take gigabytes when thousands are kept."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
