"""What each of several gloo processes does; test_sharded.py starts them, for a process has one group of ranks."""

import math
import os
from collections.abc import Callable
from datetime import timedelta

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from gradclip.backends import torch as ours
from gradclip.backends.torch import (
    attach,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    explain,
    get_total_norm,
)


class Checks(list[Callable[[], None]]):
    """The checks of a module, in order; as a decorator, it adds one."""

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        self.append(function)
        return function


check = Checks()


class Net(nn.Module):
    """Of sizes that FSDP2 cannot divide evenly."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.last = nn.Linear(6, 12), nn.Linear(12, 7), nn.Linear(7, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.down(self.up(x).relu()))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def backward(model: nn.Module, scale: float = 1.0) -> None:
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    (model(x).square().sum() * scale).backward()


def whole(x: torch.Tensor) -> torch.Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def gathered(model: nn.Module) -> Net:
    """The same gradients on one process."""
    alone = net()
    for mine, other in zip(model.parameters(), alone.parameters(), strict=True):
        other.grad = whole(mine.grad).clone()
    return alone


def assert_as_on_one(model: nn.Module, clip: Callable[[nn.Module], object]) -> None:
    """Clip, and compare with the same on one process: norm and gradients, on every rank."""
    alone = gathered(model)
    norm, want = clip(model), clip(alone)
    if norm is not None:
        assert type(norm) is torch.Tensor, "a plain tensor, not one of the mesh"
        torch.testing.assert_close(norm, want, rtol=3e-7, atol=0)
        everyone = [torch.empty_like(norm) for _ in range(distributed.get_world_size())]
        distributed.all_gather(everyone, norm)
        assert all(torch.equal(other, norm) for other in everyone), "the same bits on every rank"
    for mine, other in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(whole(mine.grad), other.grad, rtol=2e-6, atol=0)


def one_mesh() -> nn.Module:
    return fully_shard(net(), mesh=init_device_mesh("cpu", (distributed.get_world_size(),)))


def two_meshes() -> nn.Module:
    """Two groups of layers, each sharded over a mesh of its own, one of them replicated as well."""
    model, world = net(), distributed.get_world_size()
    fully_shard(model.up, mesh=init_device_mesh("cpu", (world // 2, 2), mesh_dim_names=("replicate", "shard")))
    fully_shard(model.down, mesh=init_device_mesh("cpu", (world,)))
    return fully_shard(model, mesh=init_device_mesh("cpu", (world,)))


def tensor_parallel() -> nn.Module:
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    return parallelize_module(net(), mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})


def two_dimensions() -> nn.Module:
    """Tensor parallelism along one dimension of a mesh, and FSDP2 along the other."""
    mesh = init_device_mesh("cpu", (distributed.get_world_size() // 2, 2), mesh_dim_names=("data", "model"))
    model = parallelize_module(net(), mesh["model"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    return fully_shard(model, mesh=mesh["data"])


def from_all(numbers: torch.Tensor) -> torch.Tensor:
    """What users write to merge partial norms by hand."""
    everyone = [torch.empty_like(numbers) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everyone, numbers)
    return torch.stack(everyone)


def by_hand(model: nn.Module) -> None:
    """Clip by a norm that is merged by hand, if other ranks hold parts of the model."""
    partial = ours.norm_partial(model)
    spread = any(isinstance(p, DTensor) for p in model.parameters())
    ours.clip_with_norm_(model, 1.0, partial.merged(from_all) if spread else partial)


MODELS = [one_mesh, two_meshes, tensor_parallel, two_dimensions]
WITHOUT_PLAIN = [one_mesh, two_meshes, two_dimensions]


def declared(model: nn.Module) -> list[nn.Parameter]:
    """The plain parameters beside DTensors: those that tensor parallelism left as they were, the same on all ranks."""
    return [p for p in model.parameters() if not isinstance(p, DTensor)]


@check
def every_model_is_clipped_as_on_one_process() -> None:
    for make in MODELS:
        for max_norm in (0.5, 1e9):
            model = make()
            backward(model)
            assert_as_on_one(
                model, lambda m, most=max_norm: clip_grad_norm_(m.parameters(), most, replicated=declared(m))
            )


@check
def every_order_and_magnitude() -> None:
    for make in (one_mesh, two_dimensions):
        for order, scale in ((1.0, 1.0), (3.0, 1.0), (float("inf"), 1.0), (2.0, 1e25), (2.0, 1e-25)):
            model = make()
            backward(model, scale)
            assert_as_on_one(model, lambda m, p=order, s=scale: clip_grad_norm_(m.parameters(), s, p))


@check
def by_value_and_by_a_known_norm() -> None:
    for make in MODELS:
        model = make()
        backward(model)
        assert_as_on_one(model, lambda m: clip_grad_value_(m.parameters(), 0.1))
        model = make()
        backward(model)
        assert_as_on_one(model, lambda m: clip_grads_with_norm_(m, 1.0, get_total_norm(m, replicated=declared(m))))


@check
def each_gradient_by_the_norm_of_the_whole() -> None:
    clips = (
        lambda m: ours.clip_by_norm_(m, 0.5),
        lambda m: ours.clip_by_rms_(m.parameters(), 0.25),
        lambda m: ours.clip_by_value_(m.named_parameters(), 0.5, min_value=-0.1),
        lambda m: ours.clip_by_global_norm_({name: p.grad for name, p in m.named_parameters()}, 0.5),
        by_hand,
    )
    for make in MODELS:
        for clip in clips if make in WITHOUT_PLAIN else clips[:3]:
            model = make()
            backward(model)
            assert_as_on_one(model, clip)


@check
def norms_are_those_of_the_whole_and_new_gradients_are_not_made() -> None:
    for make in MODELS:
        model = make()
        backward(model)
        alone = gathered(model)
        tensors = {name: p.grad for name, p in model.named_parameters()}
        for source in (model, tensors) if make in WITHOUT_PLAIN else ():
            torch.testing.assert_close(ours.global_norm(source), ours.global_norm(alone), rtol=3e-7, atol=0)
            torch.testing.assert_close(ours.leaf_norms(source), ours.leaf_norms(alone), rtol=3e-7, atol=0)
        for clip in (ours.clip_by_norm, ours.clip_by_rms, ours.clip_by_value, ours.clip_by_global_norm):
            with pytest.raises(TypeError, match=r"is a DTensor, expected a plain tensor; clip DTensors in place"):
                clip(tensors, 1.0)
        with pytest.raises(TypeError, match="is a DTensor"):
            ours.clip_per_example(tensors, 1.0)


@check
def the_norm_of_torch_may_be_passed_on() -> None:
    model, other = one_mesh(), one_mesh()
    backward(model)
    backward(other)
    norm = torch.nn.utils.get_total_norm([p.grad for p in other.parameters()])
    assert isinstance(norm, DTensor)
    clip_grads_with_norm_(model.parameters(), 1.0, norm)
    clip_grad_norm_(other.parameters(), 1.0)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad.to_local(), q.grad.to_local(), rtol=2e-6, atol=0)


@check
def in_the_optimizer() -> None:
    model, alone = one_mesh(), net()
    optimizers = [torch.optim.AdamW(m.parameters(), lr=0.1) for m in (model, alone)]
    handles = [attach(optimizer, max_norm=0.5) for optimizer in optimizers]
    for _ in range(3):
        for m, optimizer in zip((model, alone), optimizers, strict=True):
            optimizer.zero_grad()
            backward(m)
            optimizer.step()
        torch.testing.assert_close(handles[0].norm, handles[1].norm, rtol=1e-5, atol=0)
    for mine, other in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(whole(mine), other, rtol=1e-4, atol=1e-5)


@check
def who_did_it() -> None:
    model = two_dimensions()
    backward(model)
    alone = gathered(model)
    assert list(explain(model)) == list(explain(alone))
    for name, norm in explain(model).items():
        torch.testing.assert_close(norm, explain(alone)[name], rtol=1e-6, atol=0)


@check
def a_rank_without_gradients_does_not_keep_the_others_waiting() -> None:
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    parameter = nn.Parameter(distribute_tensor(torch.zeros(8), mesh, [Shard(0)]))
    if distributed.get_rank() == 0:
        parameter.grad = DTensor.from_local(torch.full((8 // mesh.size(),), 3.0), mesh, [Shard(0)])
    norm = clip_grad_norm_([parameter], 1.0)
    assert math.isclose(float(norm), 3.0 * (8 // mesh.size()) ** 0.5, rel_tol=1e-7)


@check
def nan_on_one_rank_is_nan_on_all() -> None:
    for policy in ("zero", "propagate"):
        model = one_mesh()
        backward(model)
        if distributed.get_rank() == 1:
            next(model.parameters()).grad.to_local()[0] = float("nan")
        norm = clip_grad_norm_(model.parameters(), 1.0, nonfinite=policy)
        assert norm.isnan()
        for p in model.parameters():
            part = p.grad.to_local()
            assert not part.any() if policy == "zero" else part.isnan().all()
    model = one_mesh()
    backward(model)
    if distributed.get_rank() == 1:
        next(model.parameters()).grad.to_local()[0] = float("nan")
    with pytest.raises(RuntimeError, match=r"parameters\[0\]\.grad is NaN or inf"):  # on every rank
        clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)


@check
def replicated_gradients_count_once() -> None:
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    parameter = nn.Parameter(distribute_tensor(torch.zeros(2), mesh, [Replicate()]))
    parameter.grad = distribute_tensor(torch.tensor([3.0, 4.0]), mesh, [Replicate()])
    assert float(clip_grad_norm_([parameter], 1.0)) == 5
    torch.testing.assert_close(parameter.grad.to_local(), torch.tensor([0.6, 0.8]))
    tied = [parameter, parameter]
    assert float(clip_grad_norm_(tied, 2.0)) == 1


def main(checks: Checks, last: Callable[[], None] | None = None) -> None:
    """Run the checks in this process, one of several ranks; after ``last``, ranks exchange nothing any more."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    for function in checks:
        function()
        distributed.barrier()
        if distributed.get_rank() == 0:
            print("passed", function.__name__, flush=True)
    if last is not None:
        last()
        if distributed.get_rank() == 0:
            print("passed", last.__name__, flush=True)
        os._exit(0)  # without the shutdown of the process group, which may wait for other ranks
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(check)
