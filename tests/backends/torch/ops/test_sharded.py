"""Gradients that are spread over ranks, on real gloo processes: meshes, groups, stages, experts, FSDP1."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[4]

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch was built without distributed")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


CHECKS = {"on_ranks": 11, "on_ranks_of_a_group": 20, "on_ranks_laws": 6}
"""The modules that each rank runs, with the number of their checks."""


@pytest.mark.parametrize("module", CHECKS)
@pytest.mark.parametrize("world", [2, 4])
def test_on_several_ranks(world, module, tmp_path):
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
    outputs = [(tmp_path / f"rank{rank}.txt").open("w+") for rank in range(world)]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", f"tests.backends.torch.ops.{module}"],
            cwd=ROOT,
            env={**os.environ, **address, "RANK": str(rank), "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        for rank, output in enumerate(outputs)
    ]
    try:
        codes = [rank.wait(timeout=300) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    said = []
    for output in outputs:
        output.seek(0)
        said.append(output.read())
        output.close()
    assert codes == [0] * world, "\n\n".join(said)
    assert sum(line.startswith("passed ") for line in said[0].splitlines()) == CHECKS[module]
