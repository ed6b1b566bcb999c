"""What each of several gloo processes does; test_recipes.py starts them."""

import math
import os
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import gradclip.backends.torch
from tests.parallelism.recipe import SCALES, assert_clipped, part, recipe, whole_norm


def stage_of(rank: int, scale: float) -> torch.nn.ParameterList:
    model = torch.nn.ParameterList([torch.zeros(x.shape) for x in part(rank, scale)])
    for p, g in zip(model, part(rank, scale), strict=True):
        p.grad = torch.from_numpy(g)
    return model


def by_hand() -> None:
    clip, rank, world = recipe("clip_over_ranks_"), distributed.get_rank(), distributed.get_world_size()
    for scale in SCALES:
        mine = stage_of(rank, scale)
        norm = clip(mine, scale)
        assert_clipped(norm, [p.grad.numpy() for p in mine], rank, world, scale)


def along_a_mesh() -> None:
    rank, world = distributed.get_rank(), distributed.get_world_size()
    mesh = init_device_mesh("cpu", (world // 2, 2))
    clip = recipe("clip_over_mesh_")
    clip.__globals__.update(torch=torch, gradclip=gradclip)
    for scale in SCALES:
        mine = stage_of(rank, scale)
        assert_clipped(clip(mine, scale, mesh), [p.grad.numpy() for p in mine], rank, world, scale)


def torchtitan_with_two_stage_groups() -> None:
    """Each stage is sharded over the ranks that hold it, on a part of a mesh; torchtitan adds up squares of norms."""
    world = distributed.get_world_size()
    mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("pp", "dp"))
    stage = mesh.get_local_rank("pp")
    for scale in SCALES:
        model = torch.nn.ParameterList([torch.zeros(x.shape) for x in part(stage)])
        fully_shard(model, mesh=mesh["dp"])
        for p, g in zip(model, part(stage, scale), strict=True):
            p.grad = torch.distributed.tensor.distribute_tensor(torch.from_numpy(g), mesh["dp"], p.placements)
        theirs = torch.nn.utils.get_total_norm([p.grad for p in model]).full_tensor()
        theirs **= 2
        distributed.all_reduce(theirs, group=mesh["pp"].get_group())
        theirs **= 0.5
        want = whole_norm(2, scale)
        assert math.isclose(float(theirs), want, rel_tol=1e-5) == (scale == 1), "inf at 1e25, 0 at 1e-30"
        norm = recipe("clip_grad_norm_")(model.parameters(), scale, pp_mesh=mesh["pp"])
        assert_clipped(norm, [p.grad.full_tensor().numpy() for p in model], stage, 2, scale)


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    for check in (by_hand, along_a_mesh, torchtitan_with_two_stage_groups):
        check()
        distributed.barrier()
        print("passed", check.__name__, flush=True)
    os._exit(0)  # without the shutdown of the process group, which may wait for other ranks
