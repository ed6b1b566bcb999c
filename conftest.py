"""What pytest does not collect, the order of the files, JAX's compiled programs, the memory of workers, garbage."""

import ctypes
import gc
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

try:
    import resource
except ImportError:  # on Windows
    resource = None

collect_ignore = [
    "gradclip/conformance",  # a link to conformance/, which would be run twice
    "tests/backends/cupy/on_cpu.py",  # puts the CPU in the place of a GPU for the whole process
    "tests/backends/jax/on_eight_devices.py",  # runs in a process of its own, with eight devices
    "tests/parallelism/on_mpi.py",  # these two are started by test_recipes.py
    "tests/parallelism/on_ray.py",
]

if find_spec("triton") is None:  # it comes with PyTorch's GPU builds
    collect_ignore += [f"gradclip/backends/torch/ops/{name}.py" for name in ("_launch", "_triton", "_triton_kernels")]

TRAINERS = {
    "accelerate": "accelerate",
    "ignite": "ignite",
    "keras": "keras",
    "lightning": "lightning",
    "sb3": "stable_baselines3",
    "skorch": "skorch",
    "transformers": "transformers",
}
"""Modules of gradclip.backends for trainers, and what each imports. `make integrations` installs all of them."""

missing = {module for module, package in TRAINERS.items() if find_spec(package) is None}
collect_ignore += [f"gradclip/backends/{module}{end}" for module in sorted(missing) for end in ("", ".py")]
if missing == set(TRAINERS):
    collect_ignore.append("tests/integrations")

LONGEST = (
    "tests/conformance/test_mutants.py",
    "tests/backends/torch/ops/test_triton.py",
    "tests/backends/cupy/test_contract.py",
    "tests/test_packaging.py",
    "tests/backends/jax/test_derivatives.py",
    "tests/backends/torch/test_compiled.py",
)
"""Files whose few tests take longest. They run first, so that no worker starts one when the others are done."""

# JAX stores compiled programs in a folder. Each process has one of its own, because JAX may read there what another
# process has half written. Processes that a test starts use the folder of the test. Finished files are shared through
# KEPT as hard links, also with later runs, which takes half of the time from the tests of JAX.
KEPT = Path(__file__).parent / "build" / "jax-programs"
KEPT_DAYS = 7
_COMPILED = Path(tempfile.mkdtemp(prefix="gradclip-jax-"))
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_COMPILED)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] = "none"  # else the keys of programs depend on the folder's name

# Threads of PyTorch that wait for each other sleep: there are as many workers as cores, and each has as many threads.
# If they spin instead, a test takes ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The loops of pydata/sparse run as Python: to compile them takes longer than all that the tests do with them.
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")


def _share(source: Path, target: Path) -> None:
    """Put the files of a folder into another one, unless they are there."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.glob("*-cache"):
        copy = target / f"{file.name}.{os.getpid()}"  # so that no process sees a part of it, should links be impossible
        with suppress(OSError):  # another process may remove the file meanwhile
            try:
                os.link(file, target / file.name)
            except FileExistsError:
                continue
            except OSError:  # another file system
                copy.write_bytes(file.read_bytes())
                copy.replace(target / file.name)


def pytest_configure() -> None:
    """Take the programs of earlier runs; remove those that are old."""
    oldest = time.time() - KEPT_DAYS * 86400
    for file in KEPT.glob("*-cache"):
        with suppress(OSError):
            if file.stat().st_mtime < oldest:
                file.unlink()
    _share(KEPT, _COMPILED)


def pytest_unconfigure() -> None:
    """Keep what JAX compiled; let Python see everything again, because some libraries report what it does not free."""
    gc.unfreeze()
    _share(_COMPILED, KEPT)
    shutil.rmtree(_COMPILED, ignore_errors=True)


PEAKS = pytest.StashKey[list[float]]()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the peak memory of a worker of pytest-xdist to the process that reports it."""
    if resource is not None and hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the peak memory of a worker."""
    if (peak := getattr(node, "workeroutput", {}).get("peak_gb")) is not None:
        node.config.stash.setdefault(PEAKS, []).append(peak)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the peak memory of the workers."""
    if peaks := config.stash.get(PEAKS, []):
        terminalreporter.write_line(f"peak memory of the workers: {', '.join(f'{peak:.2f} GB' for peak in peaks)}")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Let Python not search for garbage while tests are collected, nor later among what was imported and collected.

    There is little garbage among 50,000 objects that stay to the end.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files of `LONGEST` first."""

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(config.rootpath).as_posix() if item.path.is_relative_to(config.rootpath) else ""
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)


FORGET_AFTER_A_FILE_GB, FORGET_WITHIN_A_FILE_GB = 1.3, 1.7
"""Memory of a process from which on JAX and PyTorch forget compiled programs."""

GROWTH_GB = 0.2
"""How much it grows at least before they forget again within a file: tests should not compile all programs anew."""

RETURN_MEMORY = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "malloc_trim", lambda _: None)
"""glibc's function that returns freed memory to the system. glibc keeps what lies between things that are in use."""

_kept_gb = 0.0
"""What this process had after it forgot programs."""


def _memory_gb() -> float:
    """Return the memory that this process has now; NaN where it cannot be read."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (OSError, ValueError):
        return math.nan


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Forget compiled programs when they take much memory: they take gigabytes when thousands are kept."""
    global _kept_gb
    memory, ends_file = _memory_gb(), nextitem is None or nextitem.path != item.path
    limit = FORGET_AFTER_A_FILE_GB if ends_file else max(FORGET_WITHIN_A_FILE_GB, _kept_gb + GROWTH_GB)
    if memory < limit or (math.isnan(memory) and not ends_file):
        return
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
    gc.collect()
    RETURN_MEMORY(0)
    _kept_gb = _memory_gb()
