"""What each of several gloo processes does; test_sharded.py starts them. Here ranks hold parameters of their own."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import distributed, nn
from torch.distributed import group as groups
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from gradclip.backends.torch import (
    adaptive_grad_clip_,
    attach,
    clip_by_rms_,
    clip_grad_norm_,
    clip_grads_with_norm_,
    explain,
    get_total_norm,
    global_norm,
    grad_norms,
    leaf_norms,
)
from gradclip.policies import AdaGC, ZClip
from tests import exact
from tests.backends.torch.ops.on_ranks import Checks, backward, main, net

check = Checks()


def rank() -> int:
    return distributed.get_rank()


def world() -> int:
    return distributed.get_world_size()


def with_grad(values: torch.Tensor) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros_like(values))
    parameter.grad = values
    return parameter


def stage(of: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """The parameters of one pipeline stage, whose gradients differ from stage to stage in number and magnitude."""
    generator = torch.Generator().manual_seed(of)
    sizes = [(5 + of, 3), (7,), (2, 2)][: 1 + of % 3]
    return [with_grad((torch.randn(n, generator=generator) * scale * 10.0**of).to(dtype)) for n in sizes]


def norm_of(parameters: list[nn.Parameter]) -> float:
    return float(exact.norm([x for p in parameters for x in p.grad.double().flatten().tolist()], 2.0))


@contextmanager
def collectives(most: int) -> Iterator[None]:
    """Count what gloo does."""
    with torch.profiler.profile() as profile:
        yield
    done = [event.name for event in profile.events() if event.name.startswith("gloo:")]
    assert len(done) == most, done


def same_on_all(value: float) -> None:
    everyone = [None] * world()
    distributed.all_gather_object(everyone, value)
    assert len(set(map(repr, everyone))) == 1, everyone


@check
def stages_have_one_norm_from_one_collective() -> None:
    for scale, dtype in ((1.0, torch.float32), (1e25, torch.float32), (1e-30, torch.float32), (1.0, torch.bfloat16)):
        want = norm_of([p for of in range(world()) for p in stage(of, scale, dtype)])
        mine = stage(rank(), scale, dtype)
        before = [p.grad.double() for p in mine]
        with collectives(1):
            norm = clip_grad_norm_(mine, scale, group=groups.WORLD)
        same_on_all(float(norm))
        assert math.isclose(float(norm), want, rel_tol=1e-6)
        for p, x in zip(mine, before, strict=True):
            torch.testing.assert_close(
                p.grad.double(), x * scale / want, rtol=1e-2 if p.dtype != torch.float32 else 1e-6, atol=0
            )
        assert math.isclose(float(get_total_norm([p.grad for p in mine], group=groups.WORLD)), scale, rel_tol=1e-2)


@check
def experts_on_a_mesh_of_their_own() -> None:
    """Half of the ranks hold one expert, the others another one."""
    half = list(range(world() // 2)), list(range(world() // 2, world()))
    meshes = [DeviceMesh("cpu", ranks) for ranks in half]
    mine = rank() // (world() // 2)
    whole = [torch.arange(1.0, 9.0) * 10**of for of in range(2)]
    want = float(exact.norm(torch.cat(whole).tolist(), 2.0))
    parameter = nn.Parameter(distribute_tensor(torch.zeros(8), meshes[mine], [Shard(0)]))
    parameter.grad = distribute_tensor(whole[mine], meshes[mine], [Shard(0)])
    with pytest.raises(ValueError, match=r"is on a mesh of \d of \d ranks.*pass group=torch.distributed.group.WORLD"):
        clip_grad_norm_([parameter], 1.0)
    norm = clip_grad_norm_([parameter], 1.0, group=groups.WORLD)
    assert math.isclose(float(norm), want, rel_tol=1e-6)
    same_on_all(float(norm))
    torch.testing.assert_close(parameter.grad.full_tensor(), whole[mine] / want)
    alone = get_total_norm([parameter.grad], group=meshes[mine])
    assert math.isclose(float(alone), float(exact.norm((whole[mine] / want).tolist(), 2.0)), rel_tol=1e-6)


@check
def fsdp1_needs_its_group() -> None:
    for original in (False, True):
        model = FullyShardedDataParallel(net(), use_orig_params=original, device_id=torch.device("cpu"))
        backward(model)
        alone = net()
        backward(alone)
        want = norm_of(list(alone.parameters()))
        for given in (model, list(model.parameters()), torch.optim.SGD(model.parameters())):
            with pytest.raises(ValueError, match=r"is a parameter of FSDP1.*pass group=model.process_group"):
                clip_grad_norm_(given, 1.0)
        for function, more in (
            (leaf_norms, ()),
            (global_norm, ()),
            (adaptive_grad_clip_, (0.1,)),
            (clip_by_rms_, (1.0,)),
        ):
            with pytest.raises(ValueError, match=r"is a parameter of FSDP1"):
                function(model, *more)
        norm = clip_grad_norm_(model.parameters(), 1.0, group=model.process_group)
        assert math.isclose(float(norm), want, rel_tol=1e-6)
        same_on_all(float(norm))
    model = FullyShardedDataParallel(net(), sharding_strategy=ShardingStrategy.NO_SHARD, device_id=torch.device("cpu"))
    backward(model)
    assert math.isclose(float(clip_grad_norm_(model.parameters(), 1.0)), want, rel_tol=1e-6)


@check
def a_layer_that_was_forgotten() -> None:
    model = net()
    fully_shard(model.up)
    fully_shard(model.down)
    backward(model)
    with pytest.raises(ValueError, match=r"is a plain tensor among DTensors \(plain: 1 of 5\).*pass replicated="):
        clip_grad_norm_(model, 1.0)
    whole = [p.grad.full_tensor() if isinstance(p, DTensor) else p.grad.clone() for p in model.parameters()]
    once = norm_of(list(map(with_grad, whole)))
    each = norm_of(list(map(with_grad, [*whole, *[whole[-1]] * (world() - 1)])))
    assert math.isclose(float(get_total_norm(model, replicated=model.last)), once, rel_tol=1e-6)
    assert math.isclose(float(get_total_norm(model, replicated=True)), once, rel_tol=1e-6)
    assert math.isclose(float(get_total_norm(model, group=groups.WORLD)), each, rel_tol=1e-6)
    assert math.isclose(
        float(get_total_norm(model, group=groups.WORLD, replicated=[model.last.weight])), once, rel_tol=1e-6
    )


@check
def sums_that_are_yet_to_be_made() -> None:
    mesh = init_device_mesh("cpu", (world(),))
    mine = torch.tensor([3.0, -4.0]) * (rank() + 1)
    total = torch.tensor([3.0, -4.0]) * sum(range(1, world() + 1))
    for reduction in ("sum", "avg"):
        parameter = nn.Parameter(distribute_tensor(torch.zeros(2), mesh, [Replicate()]))
        parameter.grad = DTensor.from_local(mine.clone(), mesh, [Partial(reduction)])
        other = nn.Parameter(distribute_tensor(torch.zeros(4), mesh, [Shard(0)]))
        other.grad = distribute_tensor(torch.full((4,), 2.0), mesh, [Shard(0)])
        whole = total if reduction == "sum" else total / world()
        want = float(exact.norm([*whole.tolist(), 2.0, 2.0, 2.0, 2.0], 2.0))
        norm = clip_grad_norm_([parameter, other], 1.0)
        assert math.isclose(float(norm), want, rel_tol=1e-6)
        assert parameter.grad.placements == (Partial(reduction),)
        torch.testing.assert_close(parameter.grad.full_tensor(), whole / want)
        clip_grads_with_norm_([parameter, other], 0.5, 1.0)
        torch.testing.assert_close(parameter.grad.full_tensor(), whole / want / 2)
        assert math.isclose(explain({"scale": parameter, "other": other}).norm, 0.5, rel_tol=1e-6)
    parameter.grad = DTensor.from_local(mine, mesh, [Partial("max")])
    with pytest.raises(ValueError, match="expected Shard, Replicate or a Partial sum"):
        clip_grad_norm_([parameter], 1.0)


@check
def a_sum_without_a_summand_is_an_error_on_all() -> None:
    mesh = init_device_mesh("cpu", (world(),))
    parameter = nn.Parameter(distribute_tensor(torch.zeros(2), mesh, [Replicate()]))
    if rank() != 1:
        parameter.grad = DTensor.from_local(torch.ones(2), mesh, [Partial()])
    with pytest.raises(ValueError, match="gradients with a Partial placement differ between ranks"):
        clip_grad_norm_([parameter], 1.0)


@check
def other_arguments_on_a_rank_are_an_error_on_all() -> None:
    last = world() - 1
    for arguments, message in (
        ((2.0 if rank() == last else 1.0,), rf"max_norm is 1 on ranks? .*; 2 on rank {last}, expected the same"),
        ((None if rank() == last else 1.0,), rf"max_norm is 1 on ranks? .*; None on rank {last}, expected the same"),
        ((torch.tensor(2.0 if rank() == last else 1.0),), rf"max_norm is 1 on ranks? .*; 2 on rank {last}"),
        ((1.0, 1.0 if rank() == last else 2.0), rf"norm_type is 2 on ranks? .*; 1 on rank {last}, expected the same"),
    ):
        mine = stage(rank())
        before = [p.grad.clone() for p in mine]
        with pytest.raises(ValueError, match=message):
            clip_grad_norm_(mine, *arguments, group=groups.WORLD)
        assert all(torch.equal(p.grad, x) for p, x in zip(mine, before, strict=True))
    model = fully_shard(net())
    backward(model)
    with pytest.raises(ValueError, match=rf"max_norm is 1 on ranks? .*; 2 on rank {last}"):
        clip_grad_norm_(model, 2.0 if rank() == last else 1.0)


@check
def an_error_on_one_rank_is_an_error_on_all() -> None:
    for shared in (True, False):
        mine = stage(rank()) if shared else list(fully_shard(net()).parameters())
        options = {"group": groups.WORLD} if shared else {}
        if rank() == 0:
            with pytest.raises(ValueError, match="max_norm=-1"):
                clip_grad_norm_(mine, -1.0, **options)
            with pytest.raises(TypeError, match="expected a tensor"):
                clip_grad_norm_([*mine, "nothing"], 1.0, **options)
        else:
            for _ in range(2):
                with pytest.raises(RuntimeError, match="rank 0 raised an error before the norm was known"):
                    clip_grad_norm_(mine, 1.0, **options)


@check
def a_rank_without_anything() -> None:
    mine = [] if rank() == 0 else stage(rank())
    want = norm_of([p for of in range(1, world()) for p in stage(of)])
    norm = clip_grad_norm_(mine, 1.0, group=groups.WORLD)
    assert math.isclose(float(norm), want, rel_tol=1e-6)
    same_on_all(float(norm))


@check
def nan_on_one_rank() -> None:
    for policy in ("propagate", "zero"):
        mine = stage(rank())
        if rank() == 1:
            mine[0].grad[0, 0] = math.nan
        assert clip_grad_norm_(mine, 1.0, nonfinite=policy, group=groups.WORLD).isnan()
        for p in mine:
            assert p.grad.isnan().all() if policy == "propagate" else not p.grad.any()
    mine = stage(rank())
    if rank() == 1:
        mine[0].grad[0, 0] = math.inf
    with pytest.raises(RuntimeError, match=r"parameters\[0\].grad is NaN or inf in some element on rank 1"):
        clip_grad_norm_(mine, 1.0, error_if_nonfinite=True, group=groups.WORLD)


@check
def another_order_on_a_rank_does_not_deadlock() -> None:
    one, two = init_device_mesh("cpu", (world(),)), init_device_mesh("cpu", (world() // 2, 2))
    first = nn.Parameter(distribute_tensor(torch.zeros(8), one, [Shard(0)]))
    second = nn.Parameter(distribute_tensor(torch.zeros(8), two, [Replicate(), Shard(0)]))
    first.grad = distribute_tensor(torch.arange(8.0), one, [Shard(0)])
    second.grad = distribute_tensor(torch.arange(8.0), two, [Replicate(), Shard(0)])
    ordered = [first, second] if rank() else [second, first]
    norm = clip_grad_norm_(ordered, 1.0)
    assert math.isclose(float(norm), math.sqrt(2 * 140), rel_tol=1e-6)
    named = {"first": first, "second": second} if rank() else {"second": second, "first": first}
    assert math.isclose(explain(named).norm, 1.0, rel_tol=1e-6)


@check
def norms_by_name_of_all_stages() -> None:
    mine = {f"stage{rank()}.{i}": p for i, p in enumerate(stage(rank()))}
    want = {f"stage{of}.{i}": norm_of([p]) for of in range(world()) for i, p in enumerate(stage(of))}
    found = {name.split("'")[1]: norm for name, norm in grad_norms(mine, group=groups.WORLD).items()}
    assert found.keys() == want.keys()
    for name, norm in want.items():
        assert math.isclose(float(found[name]), norm, rel_tol=1e-6)
    whole = explain(mine, group=groups.WORLD)
    assert math.isclose(whole.norm, math.hypot(*want.values()), rel_tol=1e-6)
    assert next(iter(whole)).split("'")[1].startswith(f"stage{world() - 1}.")


@check
def norms_by_name_where_a_gradient_is_missing() -> None:
    mesh = init_device_mesh("cpu", (world(),))
    parameter = nn.Parameter(distribute_tensor(torch.zeros(8), mesh, [Shard(0)]))
    if rank() == 0:
        parameter.grad = DTensor.from_local(torch.full((8 // world(),), 3.0), mesh, [Shard(0)])
    found = explain([("weight", parameter)])
    assert math.isclose(found["weight"], 3.0 * (8 // world()) ** 0.5, rel_tol=1e-7)
    if rank() == 0:
        parameter.grad.to_local()[0] = math.nan
    with pytest.raises(RuntimeError, match=r"weight.grad is NaN or inf in some element on rank 0"):
        clip_grad_norm_([("weight", parameter)], 1.0, error_if_nonfinite=True)


@check
def float64_stays_float64() -> None:
    mesh = init_device_mesh("cpu", (world(),))
    parameter = nn.Parameter(distribute_tensor(torch.zeros(8, dtype=torch.float64), mesh, [Shard(0)]))
    parameter.grad = distribute_tensor(torch.arange(8.0, dtype=torch.float64), mesh, [Shard(0)])
    norm = get_total_norm([parameter.grad])
    assert norm.dtype == torch.float64
    assert math.isclose(float(norm), math.sqrt(140), rel_tol=1e-14)


@check
def a_mesh_without_this_rank() -> None:
    mesh = DeviceMesh("cpu", [0])
    parameter = nn.Parameter(distribute_tensor(torch.ones(4), mesh, [Shard(0)]))
    parameter.grad = distribute_tensor(torch.full((4,), 2.0), mesh, [Shard(0)])
    with pytest.raises(ValueError, match=r"is on a mesh of 1 of \d ranks"):
        clip_grad_norm_([parameter], 1.0)
    assert float(clip_grad_norm_([parameter], 1.0, group=groups.WORLD)) == 4


@check
def groups_that_are_none() -> None:
    with pytest.raises(TypeError, match="expected a ProcessGroup or a DeviceMesh"):
        clip_grad_norm_(stage(0), 1.0, group="world")
    other = distributed.new_group([0])
    if rank():
        with pytest.raises((TypeError, ValueError), match="group"):
            clip_grad_norm_(stage(0), 1.0, group=other)
    else:
        assert math.isclose(float(clip_grad_norm_(stage(0), 1.0, group=other)), norm_of(stage(0)), rel_tol=1e-6)


@check
def a_mesh_of_several_dimensions_is_a_group() -> None:
    mesh = init_device_mesh("cpu", (world() // 2, 2), mesh_dim_names=("pipeline", "data"))
    norm = clip_grad_norm_(stage(rank()), 1.0, group=mesh)
    assert math.isclose(float(norm), norm_of([p for of in range(world()) for p in stage(of)]), rel_tol=1e-6)
    line = mesh["data"]
    first = 2 * (rank() // 2)
    norm = clip_grad_norm_(stage(rank()), 1.0, group=line)
    assert math.isclose(float(norm), norm_of([p for of in (first, first + 1) for p in stage(of)]), rel_tol=1e-6)


@check
def stages_of_sharded_layers() -> None:
    """A mesh of pipeline and data: each stage is sharded over its data ranks, on a part of the mesh."""
    mesh = init_device_mesh("cpu", (world() // 2, 2), mesh_dim_names=("pipeline", "data"))
    at = mesh.get_local_rank("pipeline")
    whole = [torch.arange(1.0, 9.0) * 3**of for of in range(world() // 2)]
    parameter = nn.Parameter(distribute_tensor(torch.zeros(8), mesh["data"], [Shard(0)]))
    parameter.grad = distribute_tensor(whole[at], mesh["data"], [Shard(0)])
    norm = clip_grad_norm_([parameter], 1.0, group=groups.WORLD)
    assert math.isclose(float(norm), float(exact.norm(torch.cat(whole).tolist(), 2.0)), rel_tol=1e-6)


@check
def attach_has_one_norm_and_one_threshold() -> None:
    """Stages with optimizers of their own: the policy sees the same norms, and so its state is the same on all."""
    mine = stage(rank())
    optimizer = torch.optim.SGD(mine, lr=0.0)
    handle = attach(optimizer, ZClip(warmup_steps=2, max_norm=None), group=groups.WORLD)
    want = norm_of([p for of in range(world()) for p in stage(of)])
    for factor in (1.0, 1.01, 100.0):
        for p, fresh in zip(mine, stage(rank()), strict=True):
            p.grad = fresh.grad * factor
        optimizer.step()
        assert math.isclose(float(handle.norm), want * factor, rel_tol=1e-6)
        same_on_all(float(handle.threshold))
        same_on_all(handle.state_dict())
    assert handle.clipped
    assert float(handle.threshold) < 1.1 * want


@check
def each_tensor_by_its_own_norm_over_stages() -> None:
    """In AdaGC's warm-up, the norm of all gradients counts, also of those on other ranks, and of ranks with none."""
    for empty in (False, True):
        with_gradients = [of for of in range(world()) if not (empty and of == 1)]
        everyone = [stage(of) if of in with_gradients else [] for of in range(world())]
        mine = [] if empty and rank() == 1 else stage(rank())
        steps, handles = [], []
        for parameters, group in ((mine or [with_grad(torch.zeros(0))], groups.WORLD), (flat(everyone), None)):
            steps.append(torch.optim.SGD(parameters, lr=0.0))
            handles.append(attach(steps[-1], AdaGC(warmup_steps=2, lambda_abs=3.0), group=group))
        if not mine:
            steps[0].param_groups[0]["params"][0].grad = None
        for factor in (1.0, 0.5, 7.0):
            fresh = [*stage(rank())[: len(mine)], *(p for of in with_gradients for p in stage(of))]
            for p, q in zip([*mine, *flat(everyone)], fresh, strict=True):
                p.grad = q.grad * factor
            for optimizer in steps:
                optimizer.step()
            same_on_all(float(handles[0].norm))
            torch.testing.assert_close(handles[0].norm, handles[1].norm, rtol=1e-6, atol=0)
            for p, q in zip(mine, everyone[rank()], strict=True):
                torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=0)
        if mine:
            assert len(handles[0].threshold) == len(mine)
    with pytest.raises(ValueError, match="norm_type=1 with group= and AdaGC was asked for, expected norm_type=2"):
        attach(torch.optim.SGD(stage(0), lr=0.0), AdaGC(), norm_type=1.0, group=groups.WORLD)


def flat(stages: list[list[nn.Parameter]]) -> list[nn.Parameter]:
    return [p for each in stages for p in each]


@check
def each_tensor_of_fsdp1_has_no_norm_of_its_own() -> None:
    model = FullyShardedDataParallel(net(), use_orig_params=True, device_id=torch.device("cpu"))
    backward(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    attach(optimizer, AdaGC(), group=model.process_group)
    before = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    with pytest.raises(ValueError, match=r"is a parameter of FSDP1.*expected whole parameters or DTensors"):
        optimizer.step()
    assert all(map(torch.equal, before, [p.grad for p in model.parameters() if p.grad is not None]))


@check
def nothing_is_written_before_ranks_agree() -> None:
    """Neither the bound of elements nor the coefficient, on no rank."""
    last = rank() == world() - 1
    optimizer = torch.optim.SGD(stage(rank()), lr=0.0)
    mine = optimizer.param_groups[0]["params"]
    for nonfinite in ("propagate", "zero", "error"):
        handle = attach(
            optimizer, max_norm=2.0 if last else 1.0, max_value=0.25, nonfinite=nonfinite, group=groups.WORLD
        )
        before = [p.grad.clone() for p in mine]
        with pytest.raises(ValueError, match=r"max_norm is 1 on ranks? .*expected the same"):
            optimizer.step()
        assert all(map(torch.equal, before, [p.grad for p in mine]))
    handle.max_norm = 1.0
    optimizer.step()
    want = [p.grad.clamp(-0.25, 0.25) for of in range(world()) for p in stage(of)]
    norm = float(exact.norm([x for g in want for x in g.double().flatten().tolist()], 2.0))
    assert math.isclose(float(handle.norm), norm, rel_tol=1e-6)
    for p, q in zip(mine, stage(rank()), strict=True):
        torch.testing.assert_close(p.grad, q.grad.clamp(-0.25, 0.25) / max(norm, 1.0), rtol=1e-6, atol=0)


@check
def overlaps_on_one_rank_are_an_error_on_all() -> None:
    mine = stage(rank())
    if rank() == 0:
        line = torch.arange(1.0, 7.0)
        mine = [with_grad(line[:4]), with_grad(line[2:])]
    before = [p.grad.clone() for p in mine]
    refused = (ValueError, "memory") if rank() == 0 else (RuntimeError, "rank 0 raised an error")
    with pytest.raises(refused[0], match=refused[1]):
        clip_grad_norm_(mine, 1.0, group=groups.WORLD)
    assert all(map(torch.equal, before, [p.grad for p in mine]))


@check
def one_collective_for_meshes_of_any_shape() -> None:
    mesh = init_device_mesh("cpu", (world() // 2, 2), mesh_dim_names=("data", "model"))
    placements = [(Shard(0), Replicate()), (Replicate(), Shard(0)), (Shard(0), Shard(0)), (Replicate(), Replicate())]
    parameters = [nn.Parameter(distribute_tensor(torch.zeros(8), mesh, placing)) for placing in placements]
    for p in parameters:
        p.grad = distribute_tensor(torch.full((8,), 0.5), mesh, p.placements)
    submesh = nn.Parameter(distribute_tensor(torch.zeros(8), mesh["data"], [Shard(0)]))
    submesh.grad = distribute_tensor(torch.full((8,), 0.5), mesh["data"], [Shard(0)])
    with collectives(1):
        norm = clip_grad_norm_([*parameters, submesh], 1.0)
    assert math.isclose(float(norm), math.sqrt(5 * 8 * 0.25), rel_tol=1e-6)


if __name__ == "__main__":
    main(check)
