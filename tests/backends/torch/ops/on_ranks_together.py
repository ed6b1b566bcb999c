"""What each of several gloo processes does; test_sharded.py starts them. Here clipping meets what else training has."""

import math

import torch
from torch import nn
from torch.distributed import group as groups
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from gradclip.backends.torch import attach, clip_grad_norm_, clip_in_backward, explain
from gradclip.policies import AdaGC, AutoClip, SkipStep, ZClip
from tests.backends.torch.ops.on_ranks import Checks, backward, main, net, whole
from tests.backends.torch.ops.on_ranks_of_a_group import norm_of, rank, same_on_all, stage, world

check = Checks()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(self.norm(x)).relu())


def block() -> Block:
    torch.manual_seed(0)
    return Block()


@check
def sequence_parallelism_beside_tensor_parallelism() -> None:
    """The norm's weights are whole on each rank, and each rank has seen a part of the sequence."""
    mesh = init_device_mesh("cpu", (world(),))
    plan = {
        "norm": SequenceParallel(),
        "up": ColwiseParallel(input_layouts=Shard(1)),
        "down": RowwiseParallel(output_layouts=Shard(1), use_local_output=False),
    }
    model = parallelize_module(block(), mesh, plan)
    model = parallelize_module(
        model, mesh, PrepareModuleInput(input_layouts=Replicate(), desired_input_layouts=Shard(1))
    )
    alone = block()
    x = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(1))
    model(x).full_tensor().square().sum().backward()
    alone(x).square().sum().backward()
    assert any(p.is_partial() for q in model.norm.parameters() for p in q.grad.placements)
    torch.testing.assert_close(clip_grad_norm_(model, 1.0), clip_grad_norm_(alone, 1.0), rtol=1e-5, atol=0)
    for p, q in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(whole(p.grad), q.grad, rtol=1e-4, atol=1e-6)


@check
def three_dimensions() -> None:
    mesh = init_device_mesh("cpu", (world() // 2, 1, 2), mesh_dim_names=("replicate", "shard", "model"))
    model = parallelize_module(net(), mesh["model"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    parallelize_module(model.last, mesh["model"], ColwiseParallel())
    fully_shard(model, mesh=mesh["replicate", "shard"])
    alone = net()
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    (model(x)).square().sum().backward()
    found = [whole(p.grad) for p in model.parameters()]
    for p, g in zip(alone.parameters(), found, strict=True):
        p.grad = g.clone()
    norm = clip_grad_norm_(model, 0.5)
    torch.testing.assert_close(norm, clip_grad_norm_(alone, 0.5), rtol=1e-6, atol=0)
    same_on_all(float(norm))


@check
def fused_optimizers_and_thresholds_of_groups() -> None:
    """On FSDP2: a fused step, a group with a threshold of its own, and one that is not clipped."""
    models = [fully_shard(net()), net()]
    steps, handles = [], []
    for model in models:
        groups_ = [{"params": list(model.up.parameters())}, {"params": [*model.down.parameters()], "max_norm": 0.5}]
        steps.append(torch.optim.AdamW([*groups_, {"params": [*model.last.parameters()], "clip": False}], fused=True))
        handles.append(attach(steps[-1], max_norm=1.0))
    for _ in range(2):
        for model, optimizer in zip(models, steps, strict=True):
            optimizer.zero_grad()
            backward(model)
            optimizer.step()
        torch.testing.assert_close(handles[0].norm, handles[1].norm, rtol=1e-5, atol=0)
        same_on_all(float(handles[0].norm))
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(whole(p.grad), q.grad, rtol=1e-4, atol=1e-6)


@check
def a_scaled_loss_over_stages() -> None:
    """Gradients of a scaled loss: the norm is that of the gradients divided by the scale, on every rank."""
    mine = stage(rank(), scale=1024.0)
    optimizer = torch.optim.SGD(mine, lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    handle = attach(optimizer, max_norm=1.0, group=groups.WORLD)
    scaler.scale(torch.zeros(()))  # it makes the scale
    scaler.step(optimizer)
    want = norm_of([p for of in range(world()) for p in stage(of)])
    assert math.isclose(float(handle.norm), want, rel_tol=1e-6)
    norm = clip_grad_norm_(stage(rank(), scale=1024.0), 1.0, scale=1024.0, group=groups.WORLD)
    assert math.isclose(float(norm), want, rel_tol=1e-6)


@check
def policies_have_the_same_state_on_all_ranks() -> None:
    for policy in (ZClip(warmup_steps=1), AutoClip(), SkipStep(), AdaGC(warmup_steps=1)):
        model, alone = fully_shard(net()), net()
        steps = [torch.optim.SGD(m.parameters(), lr=0.01) for m in (model, alone)]
        handles = [attach(optimizer, policy) for optimizer in steps]
        for factor in (1.0, 1.1, 50.0):
            for m, optimizer in zip((model, alone), steps, strict=True):
                optimizer.zero_grad()
                backward(m, factor)
                optimizer.step()
            torch.testing.assert_close(handles[0].norm, handles[1].norm, rtol=1e-4, atol=0)
            same_on_all(float(handles[0].norm))
        for p, q in zip(model.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(whole(p), q, rtol=1e-4, atol=1e-5)


@check
def in_the_backward_pass() -> None:
    """Each gradient by its own norm, as an optimizer in the backward pass needs it: the same as on one process."""
    mesh = init_device_mesh("cpu", (world(),))
    model, alone = parallelize_module(net(), mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()}), net()
    for m in (model, alone):
        clip_in_backward(m, 0.5)
        backward(m)
    for p, q in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(whole(p.grad), q.grad, rtol=1e-4, atol=1e-6)


@check
def names_of_parameters_over_ranks() -> None:
    model, alone = fully_shard(net()), net()
    backward(model)
    backward(alone)
    assert list(explain(model)) == list(explain(alone))


@check
def zero_redundancy_optimizer() -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer  # its import warns, also in runs that only collect

    model, alone = net(), net()
    zero = ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1)
    usual = torch.optim.SGD(alone.parameters(), lr=0.1)
    handles = attach(zero, max_norm=0.5), attach(usual, max_norm=0.5)
    for m, optimizer in ((model, zero), (alone, usual)):
        backward(m)
        optimizer.step()
    torch.testing.assert_close(handles[0].norm, handles[1].norm, rtol=1e-6, atol=0)
    for p, q in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    main(check)
