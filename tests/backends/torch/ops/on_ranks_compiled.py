"""What each of several gloo processes does; test_sharded.py starts them. Here calls are compiled in one graph."""

import os

import pytest
import torch
from torch import distributed, nn
from torch.distributed import group as groups
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from gradclip.backends.torch import (
    attach,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from tests.backends.torch.ops.on_ranks import Checks, main

check = Checks()

in_one_graph = torch.compile(fullgraph=True, backend="aot_eager")
"""Without the compiler of kernels, which would take most of the time: what it gets is the same graph."""


def parameters(factor: float = 1.0) -> list[nn.Parameter]:
    """Parameters of any placement, on a mesh and on a part of it."""
    torch._dynamo.reset()
    mesh = init_device_mesh("cpu", (distributed.get_world_size() // 2, 2), mesh_dim_names=("data", "model"))
    places = [(mesh, (Shard(0), Replicate())), (mesh, (Replicate(), Shard(1))), (mesh, (Shard(0), Shard(0)))]
    made = []
    for i, (on, placements) in enumerate([*places, (mesh["model"], (Shard(0),))]):
        values = torch.randn(8, 4, generator=torch.Generator().manual_seed(i)) * factor
        made.append(nn.Parameter(distribute_tensor(torch.zeros(8, 4), on, placements)))
        made[-1].grad = distribute_tensor(values, on, placements)
    return made


def grads(of: list[nn.Parameter]) -> list[torch.Tensor]:
    return [p.grad.full_tensor() for p in of]


@check
def the_same_bits_as_without_a_graph() -> None:
    for factor, nonfinite in ((1.0, "propagate"), (1e25, "propagate"), (1e-30, "zero")):
        mine, others = parameters(factor), parameters(factor)
        compiled = in_one_graph(lambda ps, most, how=nonfinite: clip_grad_norm_(ps, most, nonfinite=how))
        for most in (factor, factor / 2):  # another number is no other graph
            norm, want = compiled(mine, most), clip_grad_norm_(others, most, nonfinite=nonfinite)
            assert type(norm) is torch.Tensor
            assert torch.equal(norm, want)
            assert all(map(torch.equal, grads(mine), grads(others)))


@check
def with_the_compiler_of_kernels() -> None:
    """Twice, as the second time PyTorch finds the graph in its cache, which all ranks share: each must find its own."""
    for _ in range(2):
        mine, others = parameters(), parameters()
        compiled = torch.compile(lambda ps: clip_grad_norm_(ps, 1.0), fullgraph=True)
        assert torch.equal(compiled(mine), clip_grad_norm_(others, 1.0))
        assert all(map(torch.equal, grads(mine), grads(others)))
        distributed.barrier()


@check
def a_module_and_the_other_functions() -> None:
    mine, others = parameters(), parameters()
    model = nn.ParameterList(mine)
    assert torch.equal(in_one_graph(lambda m: clip_grad_norm_(m, 1e9))(model), clip_grad_norm_(others, 1e9))
    compiled = in_one_graph(lambda ps: get_total_norm([p.grad for p in ps]))
    assert torch.equal(compiled(mine), get_total_norm([p.grad for p in others]))
    in_one_graph(lambda ps: clip_grad_value_(ps, 0.5))(mine)
    clip_grad_value_(others, 0.5)
    assert all(map(torch.equal, grads(mine), grads(others)))
    in_one_graph(lambda ps: clip_grads_with_norm_(ps, 1.0, 2.0))(mine)
    clip_grads_with_norm_(others, 1.0, 2.0)
    assert all(map(torch.equal, grads(mine), grads(others)))


@check
def a_gradient_on_one_rank_only() -> None:
    mine = parameters()
    if distributed.get_rank():
        for p in mine:
            p.grad = None
    want = get_total_norm([p.grad for p in mine if p.grad is not None], group=groups.WORLD)
    norm = in_one_graph(lambda ps: clip_grad_norm_(ps, 1.0))(mine)
    assert torch.equal(norm, want)
    assert norm > 0


@check
def errors_are_raised_on_all_ranks() -> None:
    mine = parameters()
    before = grads(mine)
    last = distributed.get_world_size() - 1
    most = 2.0 if distributed.get_rank() == last else 1.0
    compiled = in_one_graph(clip_grad_norm_)
    with pytest.raises(ValueError, match=rf"max_norm is 1 on ranks? .*; 2 on rank {last}, expected the same"):
        compiled(mine, most)
    first = distributed.get_rank() == 0
    refused = (ValueError, r"max_norm=tensor\(-1") if first else (RuntimeError, "rank 0 raised an error")
    with pytest.raises(refused[0], match=refused[1]):
        compiled(mine, -1.0 if first else 1.0)
    if distributed.get_rank() == 1:
        mine[1].grad.to_local()[0] = torch.nan  # of a part that no other rank has
    with pytest.raises(RuntimeError, match="is NaN or inf"):
        in_one_graph(lambda ps: clip_grad_norm_(ps, 1.0, error_if_nonfinite=True))(mine)
    if distributed.get_rank() == 1:
        mine[1].grad.to_local()[0] = before[1].chunk(2, 1)[1][0]
    assert all(map(torch.equal, grads(mine), before))


@check
def what_is_no_graph_says_so() -> None:
    mine = parameters()
    with pytest.raises(Exception, match="group= and replicated= are no operation of a graph"):
        in_one_graph(lambda ps: clip_grad_norm_(ps, 1.0, group=groups.WORLD))(mine)
    with pytest.raises(Exception, match="group= and replicated= are no operation of a graph"):
        in_one_graph(lambda ps: get_total_norm(ps, group=groups.WORLD))(mine)
    others = parameters()
    between = torch.compile(lambda ps: clip_grad_norm_(ps, 1.0, group=groups.WORLD), backend="aot_eager")
    assert torch.equal(between(mine), clip_grad_norm_(others, 1.0, group=groups.WORLD))
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    waiting = nn.Parameter(distribute_tensor(torch.zeros(2), mesh, [Replicate()]))
    waiting.grad = DTensor.from_local(torch.ones(2), mesh, [Partial()])
    with pytest.raises(Exception, match="redistribute the gradient first"):
        in_one_graph(lambda ps: clip_grad_norm_(ps, 1.0))([waiting])
    plain = nn.Parameter(torch.zeros(2))
    plain.grad = torch.ones(2)
    with pytest.raises(Exception, match="is a plain tensor among DTensors"):
        in_one_graph(lambda ps: clip_grad_norm_(ps, 1.0))([*others, plain])


@check
def attach_clips_between_two_graphs() -> None:
    """PyTorch breaks the graph in the steps of its own optimizers anyway: they are no single graph without us."""
    for kind in (torch.optim.SGD, torch.optim.AdamW):
        mine, others, alone = parameters(), parameters(), parameters()
        optimizers = [kind(ps, lr=0.5) for ps in (mine, others)]
        handles = [attach(optimizer, max_norm=1.0) for optimizer in optimizers]
        torch.compile(optimizers[0].step, backend="aot_eager")()
        optimizers[1].step()
        assert torch.equal(handles[0].norm, handles[1].norm)
        assert all(map(torch.equal, grads(mine), grads(others)))
        if kind is torch.optim.SGD:  # a compiled step of AdamW rounds in another way
            assert all(map(torch.equal, [p.full_tensor() for p in mine], [p.full_tensor() for p in others]))
        step = kind(alone, lr=0.5)
        with pytest.raises(torch._dynamo.exc.Unsupported, match="graph_break"):
            in_one_graph(lambda of=step: of.step())()


if __name__ == "__main__":
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    main(check)
