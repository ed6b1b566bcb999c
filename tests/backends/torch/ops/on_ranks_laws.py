"""What each of several gloo processes does; test_sharded.py starts them. Here the law: ranks change nothing."""

import math
import os
import random
import signal
import time

import pytest
import torch
from torch import distributed, nn
from torch.distributed import group as groups
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from gradclip.backends.torch import clip_grad_norm_, get_total_norm, norm_partial
from tests import exact
from tests.backends.torch.ops.on_ranks import Checks, backward, from_all, main, net, whole

check = Checks()
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
EPS = {torch.float32: 2e-7, torch.float64: 1e-15, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def spread_at_random(draw: random.Random, world: int) -> tuple[list[torch.Tensor], list[nn.Parameter], bool]:
    """Whole gradients, this rank's parameters, and whether some of these are on this rank only."""
    wide = init_device_mesh("cpu", (world // 2, 2), mesh_dim_names=("data", "model"))
    wholes, mine = [], []
    alone = draw.random() < 0.5
    for i in range(draw.randint(1, 6)):
        dtype, magnitude = draw.choice(DTYPES), 10.0 ** draw.choice([-3, 0, 2])
        shape = [draw.randint(1, 9) for _ in range(draw.randint(1, 3))]
        values = torch.randn(shape, generator=torch.Generator().manual_seed(draw.randint(0, 999))) * magnitude
        gradient = values.to(dtype)
        if alone and i % 2:  # of one rank, as an expert or a stage is
            wholes.append(gradient)
            if distributed.get_rank() == draw.randrange(world):
                mine.append(nn.Parameter(torch.zeros_like(gradient)))
                mine[-1].grad = gradient.clone()
            continue
        mesh = draw.choice([wide, wide["data"], wide["model"]])
        placements = [draw.choice([Replicate(), *map(Shard, range(len(shape)))]) for _ in range(mesh.ndim)]
        parameter = nn.Parameter(distribute_tensor(torch.zeros_like(gradient), mesh, placements))
        parameter.grad = distribute_tensor(gradient.clone(), mesh, placements)
        if dtype == torch.float32 and draw.random() < 0.3:
            summands = [p if p.is_shard() else Partial() for p in placements]
            parts = math.prod(n for n, p in zip(mesh.shape, placements, strict=True) if not p.is_shard())
            part = parameter.grad.to_local() / parts  # a power of two: exact
            sizes = {"shape": gradient.shape, "stride": gradient.stride()}
            parameter.grad = DTensor.from_local(part, mesh, summands, **sizes)
        wholes.append(gradient)
        mine.append(parameter)
    full = nn.Parameter(distribute_tensor(torch.zeros(3), wide, [Replicate(), Shard(0)]))
    full.grad = distribute_tensor(torch.arange(3.0), wide, [Replicate(), Shard(0)])
    return [*wholes, torch.arange(3.0)], [*mine, full], alone


@check
def any_partition_gives_the_norm_of_one_process() -> None:
    for seed in range(40):
        wholes, mine, alone = spread_at_random(random.Random(seed), distributed.get_world_size())
        want = float(exact.norm([x for g in wholes for x in g.double().flatten().tolist()], 2.0))
        options = {"group": groups.WORLD} if alone or seed % 2 else {}
        pending = [p for p in mine if isinstance(p.grad, DTensor) and any(x.is_partial() for x in p.grad.placements)]
        if len({(p.grad.device_mesh, tuple(x.is_partial() for x in p.grad.placements)) for p in pending}) > 1:
            continue  # sums over different meshes are refused
        before = [whole(p.grad).double().clone() for p in mine]
        norm = clip_grad_norm_(mine, want / 2, **options)
        assert math.isclose(float(norm), want, rel_tol=1e-6), (seed, float(norm), want)
        for p, x in zip(mine, before, strict=True):
            torch.testing.assert_close(whole(p.grad).double(), x / 2, rtol=2 * EPS[p.grad.dtype], atol=1e-4)


@check
def ddp_has_the_norm_on_each_rank() -> None:
    model = DistributedDataParallel(net())
    backward(model)
    want = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    torch.testing.assert_close(clip_grad_norm_(model, 1.0), want)
    shared = get_total_norm(model, group=groups.WORLD, replicated=True)
    assert math.isclose(float(shared), 1.0, rel_tol=1e-6)


@check
def the_optimizer_inside_of_zero() -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer  # its import warns, also in runs that only collect

    model = net()
    zero = ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1)
    backward(model)
    want = clip_grad_norm_(model, 1e9)
    torch.testing.assert_close(clip_grad_norm_(zero.optim, 1.0, group=groups.WORLD), want)
    for p in (p for group in zero.optim.param_groups for p in group["params"]):
        p.grad *= want
    torch.testing.assert_close(get_total_norm(zero.optim, group=groups.WORLD), want)


@check
def partial_norms_merged_by_hand() -> None:
    model = fully_shard(net())
    backward(model)
    whole_norm = get_total_norm(model)
    torch.testing.assert_close(norm_partial(model).merged(from_all).norm(), whole_norm)
    huge = fully_shard(net())
    backward(huge, 1e25)
    torch.testing.assert_close(norm_partial(huge).merged(from_all).norm(), whole_norm * 1e25)


@check
def a_rank_that_is_late() -> None:
    model = fully_shard(net())
    backward(model)
    if distributed.get_rank() == 0:
        time.sleep(1)
    clip_grad_norm_(model, 1.0)
    assert math.isclose(float(get_total_norm(model)), 1.0, rel_tol=1e-6)


def a_rank_that_is_killed() -> None:
    """The others get an error of the engine, and do not wait for its time limit."""
    model = fully_shard(net())
    backward(model)
    distributed.barrier()
    if distributed.get_rank() == distributed.get_world_size() - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(RuntimeError) as error:
        clip_grad_norm_(model, 1.0)
    assert "timed out" not in str(error.value).lower(), "the error is of the lost connection, not of the time limit"


if __name__ == "__main__":
    main(check, last=a_rank_that_is_killed)
