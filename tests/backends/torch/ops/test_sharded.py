"""Gradients that are spread over ranks, on real gloo processes: meshes, groups, stages, experts, FSDP1."""

import pytest
import torch

from tests.processes import run_ranks

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch was built without distributed")

CHECKS = {
    "on_one_rank": 6,
    "on_ranks": 11,
    "on_ranks_of_a_group": 24,
    "on_ranks_laws": 6,
    "on_ranks_compiled": 7,
    "on_ranks_failures": 7,
    "on_ranks_terms": 6,
    "on_ranks_together": 8,
}
"""The modules that each rank runs, with the number of their checks."""


WORLDS = {"on_one_rank": (1,), "on_ranks_compiled": (4,)}
"""How many ranks, if not two and four. Of compiled graphs, which take long, four ranks have all that two have."""

RUNS = [(world, module) for module in CHECKS for world in WORLDS.get(module, (2, 4))]


@pytest.mark.parametrize(("world", "module"), RUNS)
def test_on_several_ranks(world, module, tmp_path):
    said = run_ranks(f"tests.backends.torch.ops.{module}", world, tmp_path, killed=int(module == "on_ranks_laws"))
    assert sum(line.startswith("passed ") for line in said[0].splitlines()) == CHECKS[module]
