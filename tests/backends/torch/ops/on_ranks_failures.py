"""What each of several gloo processes does; test_sharded.py starts them. Each check shows first what PyTorch does."""

import math
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed import group as groups
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gradclip.backends.torch import clip_grad_norm_, get_total_norm
from tests.backends.torch.ops.on_ranks import Checks, backward, main, net
from tests.backends.torch.ops.on_ranks_of_a_group import norm_of, rank, stage, world

check = Checks()
theirs = torch.nn.utils


def of_all(value: float) -> list[float]:
    everyone: list[Any] = [None] * world()
    distributed.all_gather_object(everyone, value)
    return everyone


def sharded(values: torch.Tensor, mesh: DeviceMesh, placement: Any = None) -> nn.Parameter:
    placements = [placement or Shard(0)] * mesh.ndim
    parameter = nn.Parameter(distribute_tensor(torch.zeros_like(values), mesh, placements))
    parameter.grad = distribute_tensor(values, mesh, placements)
    return parameter


@check
def the_norm_that_a_log_shows_is_of_one_rank() -> None:
    """Of one tensor, PyTorch's norm is that of a part until it is made whole; of several, its own function does it."""
    model = fully_shard(net())
    backward(model)
    grads = [p.grad for p in model.parameters()]
    norm = torch.linalg.vector_norm(grads[0])
    whole = float(norm.full_tensor())
    assert float(norm.item()) < 0.99 * whole, "what a log shows"
    assert isinstance(theirs.get_total_norm(grads), DTensor), "which works with no plain tensor"
    ours = get_total_norm(grads[:1])
    assert type(ours) is torch.Tensor
    assert of_all(float(ours)) == [pytest.approx(whole, rel=1e-6)] * world()


@check
def a_plain_tensor_beside_dtensors_and_two_meshes() -> None:
    one, two = init_device_mesh("cpu", (world(),)), init_device_mesh("cpu", (world() // 2, 2))
    plain = nn.Parameter(torch.zeros(4))
    plain.grad = torch.full((4,), 2.0)
    first, second = sharded(torch.full((8,), 2.0), one), sharded(torch.full((8,), 2.0), two, Replicate())
    for mixed in ([first, plain], [first, second]):
        with pytest.raises((RuntimeError, ValueError, AssertionError)):
            theirs.clip_grad_norm_(mixed, 1e9)
    assert float(clip_grad_norm_([first, plain], 1e9, replicated=[plain])) == pytest.approx(math.sqrt(48))
    assert float(clip_grad_norm_([first, second], 1e9)) == 8


@check
def tied_parameters_count_twice() -> None:
    mesh = init_device_mesh("cpu", (world(),))
    parameter = sharded(torch.full((16,), 1.0), mesh)
    twice = theirs.get_total_norm([parameter.grad, parameter.grad])
    assert float(twice.full_tensor()) == pytest.approx(math.sqrt(32))
    assert float(clip_grad_norm_([parameter, parameter], 2.0)) == 4
    torch.testing.assert_close(parameter.grad.full_tensor(), torch.full((16,), 0.5))


@check
def experts_and_stages_are_clipped_by_norms_of_their_own() -> None:
    want = norm_of([p for of in range(world()) for p in stage(of)])
    alone = of_all(float(theirs.clip_grad_norm_(stage(rank()), 1.0)))
    assert len(set(alone)) == world(), "each rank has a norm of its own, and so a coefficient"
    assert of_all(float(clip_grad_norm_(stage(rank()), 1.0, group=groups.WORLD))) == [pytest.approx(want)] * world()
    half = world() // 2
    meshes = [DeviceMesh("cpu", list(range(half))), DeviceMesh("cpu", list(range(half, world())))]
    expert = rank() // half
    parameter = sharded(torch.full((8,), 10.0**expert), meshes[expert])
    found = of_all(float(theirs.get_total_norm([parameter.grad]).full_tensor()))
    assert found[0] != found[-1]
    norm = clip_grad_norm_([parameter], 1.0, group=groups.WORLD)
    assert of_all(float(norm)) == [pytest.approx(math.sqrt(808))] * world()


@check
def a_rank_without_gradients_keeps_others_waiting() -> None:
    """PyTorch's norm is 0 on such a rank, without a collective, in which the others then wait for it."""
    few = distributed.new_group(list(range(world())), timeout=timedelta(seconds=3))
    mesh = DeviceMesh.from_group(few, "cpu")
    parameter = sharded(torch.full((8,), 3.0), mesh)
    if rank():
        parameter.grad = None
        assert float(theirs.clip_grad_norm_([parameter], 1.0)) == 0
    else:
        with pytest.raises(RuntimeError, match=r"(?i)timed out|timeout"):
            theirs.clip_grad_norm_([parameter], 1.0)
    distributed.barrier()
    parameter = sharded(torch.full((8,), 3.0), init_device_mesh("cpu", (world(),)))
    if rank():
        parameter.grad = None
    want = 3.0 * math.sqrt(8 // world())
    assert of_all(float(clip_grad_norm_([parameter], 1.0))) == [pytest.approx(want)] * world()


class Counted(TorchDispatchMode):
    """Counts the operations on DTensors, of which each finds out again how its result is spread."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += any(issubclass(kind, DTensor) for kind in types)
        return func(*args, **(kwargs or {}))


@check
def pytorch_finds_out_again_how_each_result_is_spread() -> None:
    mesh = init_device_mesh("cpu", (world(),))
    parameters = [sharded(torch.ones(4), mesh) for _ in range(100)]
    with Counted() as of_torch:
        theirs.clip_grad_norm_(parameters, 1.0)
    with Counted() as ours:
        clip_grad_norm_(parameters, 0.5)
    assert of_torch.number > 0
    assert ours.number == 0, "the parts themselves are measured and multiplied"


@check
def gradients_that_were_moved_to_the_host() -> None:
    """PyTorch's norm is a DTensor in the host's memory, whose parts are added where they are: gloo can, NCCL raises."""
    model = fully_shard(net(), offload_policy=CPUOffloadPolicy(pin_memory=False))
    alone = net()
    backward(model)
    backward(alone)
    assert {p.grad.device.type for p in model.parameters()} == {"cpu"}
    theirs_norm = theirs.clip_grad_norm_(model.parameters(), 1e9)
    assert isinstance(theirs_norm, DTensor)
    assert theirs_norm.to_local().device.type == "cpu"
    torch.testing.assert_close(theirs_norm.full_tensor(), theirs.clip_grad_norm_(alone.parameters(), 1e9))
    torch.testing.assert_close(clip_grad_norm_(model, 1.0), clip_grad_norm_(alone, 1.0), rtol=1e-6, atol=0)


if __name__ == "__main__":
    main(check)
