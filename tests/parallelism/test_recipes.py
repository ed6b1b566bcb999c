"""The recipes of docs/parallelism.md, as they stand there, each on real processes of its engine."""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.processes import run_one, run_ranks


def passed(said: list[str], checks: int) -> bool:
    return all(sum(line.startswith("passed ") for line in text.splitlines()) == checks for text in said)


@pytest.mark.parametrize("world", [2, 4])
def test_torch(world, tmp_path):
    pytest.importorskip("torch.distributed.fsdp", reason="PyTorch was built without distributed")
    assert passed(run_ranks("tests.parallelism.on_torch", world, tmp_path), checks=3)


def test_two_processes_of_jax(tmp_path):
    pytest.importorskip("jax")
    assert passed(run_ranks("tests.parallelism.on_jax", 2, tmp_path), checks=2)


@pytest.mark.parametrize("world", [2, 4])
def test_mpi(world):
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    found = [x for x in (Path(sys.executable).with_name("mpiexec"), shutil.which("mpiexec")) if x and Path(x).exists()]
    if not found:
        pytest.skip("there is no mpiexec; pip install mpich")
    said = run_one([str(found[0]), "-n", str(world), sys.executable, "-m", "tests.parallelism.on_mpi"])
    assert f"passed on {world}" in said


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
def test_actors_of_ray():
    said = run_one([sys.executable, "-m", "tests.parallelism.on_ray"], RAY_USAGE_STATS_ENABLED="0")
    assert "passed" in said
