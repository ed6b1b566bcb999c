"""What each of several gloo processes does; test_sharded.py starts them. Here ranks disagree, and none waits."""

import math
from datetime import timedelta

import pytest
import torch
from torch import distributed, nn
from torch.distributed import group as groups
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from gradclip.backends.torch import (
    attach,
    clip_by_norm_,
    clip_grad_norm_,
    explain,
    get_total_norm,
    leaf_norms,
)
from gradclip.policies import ZClip
from tests.backends.torch.ops.on_ranks import Checks, main
from tests.backends.torch.ops.on_ranks_failures import of_all, sharded, theirs
from tests.backends.torch.ops.on_ranks_of_a_group import rank, stage, with_grad, world

check = Checks()
NOT_WRITTEN = "expected the same on all ranks; nothing was written on any rank"


def mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (world(),))


def last() -> bool:
    return rank() == world() - 1


def assert_unchanged(parameter: nn.Parameter, value: float) -> None:
    assert (parameter.grad.to_local() == value).all()


@check
def arguments_that_differ_are_an_error_on_all() -> None:
    for name, values in {
        "scale": (1.0, 2.0),
        "eps": (0.0, 0.5),
        "nonfinite": ("propagate", "error"),
        "error_if_nonfinite": (False, True),
    }.items():
        told = "nonfinite" if name == "error_if_nonfinite" else name
        message = rf"{told} is .* on ranks? .*; .* on rank {world() - 1}, {NOT_WRITTEN}"
        parameter, own = sharded(torch.full((8,), 3.0), mesh()), stage(rank())
        for given, options in (([parameter], {}), (own, {"group": groups.WORLD})):
            with pytest.raises(ValueError, match=message):
                clip_grad_norm_(given, 1.0, **{name: values[last()]}, **options)
        assert_unchanged(parameter, 3.0)
    with pytest.raises(ValueError, match="nonfinite is"):
        get_total_norm([parameter.grad], error_if_nonfinite=last())


@check
def steps_that_differ_are_an_error_on_all() -> None:
    for arguments, message in (
        ({"max_norm": ZClip(warmup_steps=1, max_norm=2.0 if last() else 1.0)}, r"policy is ZClip\(.*"),
        ({"max_norm": ZClip() if last() else None}, r"policy is None on ranks? .*; ZClip\(.*"),
        ({"max_norm": 1.0, "max_value": 0.5 if last() else None}, "max_value is None on ranks? .*; 0.5"),
        ({"max_norm": 1.0, "nonfinite": "error" if last() else "zero"}, "nonfinite is zero on ranks? .*; error"),
    ):
        parameter = sharded(torch.full((8,), 3.0), mesh())
        optimizer = torch.optim.SGD([parameter], lr=0.0)
        attach(optimizer, **arguments)
        with pytest.raises(ValueError, match=rf"{message} on rank {world() - 1}, {NOT_WRITTEN}"):
            optimizer.step()
        assert_unchanged(parameter, 3.0)


@check
def param_groups_that_differ_are_an_error_on_all() -> None:
    for here, there in (
        (lambda a, b: [{"params": [a], "max_norm": 0.5}, {"params": [b]}], lambda a, b: [{"params": [a, b]}]),
        (lambda a, b: [{"params": [a]}, {"params": [b], "max_norm": 3.0}], lambda a, _: [{"params": [a]}]),
    ):
        one, two = sharded(torch.full((8,), 3.0), mesh()), sharded(torch.full((8,), 3.0), mesh())
        optimizer = torch.optim.SGD((there if last() else here)(one, two), lr=0.0)
        attach(optimizer, 1.0)
        message = rf"part is 1 of 2 on ranks? .*; 1 of 1 on rank {world() - 1}, {NOT_WRITTEN}"
        with pytest.raises(ValueError, match=message):
            optimizer.step()
        with pytest.raises(ValueError, match=rf"part is 1 of 2 on ranks? .*; not known on rank {world() - 1}"):
            clip_grad_norm_(optimizer, 1.0)
        assert_unchanged(one, 3.0)
        assert_unchanged(two, 3.0)


@check
def an_error_before_the_ranks_are_known_is_told_to_all() -> None:
    """Also if one rank alone does not declare what is replicated, and if parameters are in pairs, dicts or groups."""
    plain, parameter = with_grad(torch.ones(8)), sharded(torch.full((8,), 3.0), mesh())
    told = (RuntimeError, "raised an error before the norm was known")
    kind, message = (ValueError, "is a plain tensor among DTensors") if rank() == 0 else told
    with pytest.raises(kind, match=message):
        clip_grad_norm_([plain, parameter], 1.0, replicated=() if rank() == 0 else [plain])
    for wrong in ([("a", parameter), ("b", "nothing")], {"a": parameter, "b": "nothing"}):
        kind, message = (TypeError, "expected a tensor") if rank() == 0 else told
        with pytest.raises(kind, match=message):
            explain(wrong if rank() == 0 else {"a": parameter})
    assert_unchanged(parameter, 3.0)


@check
def no_parameters_on_a_rank() -> None:
    """PyTorch's norm is 0 there, and the others wait; here that rank raises, and with ``group=`` takes part."""
    few = distributed.new_group(list(range(world())), timeout=timedelta(seconds=3))
    alone = sharded(torch.full((8,), 3.0), DeviceMesh.from_group(few, "cpu"))
    if last():
        assert float(theirs.clip_grad_norm_([], 1.0)) == 0
    else:
        with pytest.raises(RuntimeError):
            theirs.clip_grad_norm_([alone], 1.0)
    distributed.barrier()
    if last():
        for function in (clip_grad_norm_, clip_by_norm_, lambda some, _: get_total_norm(some)):
            with pytest.raises(ValueError, match=rf"there is no parameter on this rank, one of {world()}.*pass group="):
                function([], 1.0)
    parameter = sharded(torch.full((8,), 3.0), mesh())
    norm = clip_grad_norm_([] if last() else [parameter], 1e9, group=groups.WORLD)
    want = 3.0 * math.sqrt(8 - 8 // world())
    assert of_all(float(norm)) == [pytest.approx(want)] * world()


@check
def tensors_by_their_own_norms_need_the_same_tensors() -> None:
    """Parts are merged by position; gloo ends a process that gathers numbers which are not as many on all ranks."""
    one, two = sharded(torch.full((8,), 3.0), mesh()), sharded(torch.full((4,), 3.0), mesh())
    message = "the ranks of a mesh have different DTensors on it, or want norms of different orders"
    for given in ([one, two] if not last() else [two], [one, two] if not last() else [two, one]):
        with pytest.raises(ValueError, match=message):
            clip_by_norm_(given, 1.0)
        with pytest.raises(ValueError, match=message):
            leaf_norms([p.grad for p in given])
    with pytest.raises(ValueError, match=message):
        leaf_norms([one.grad], ord=1.0 if last() else 2.0)
    assert_unchanged(one, 3.0)
    if last():
        one.grad = None
    clip_by_norm_([one, two], 1.0)
    torch.testing.assert_close(two.grad.full_tensor(), torch.full((4,), 0.5))


if __name__ == "__main__":
    main(check)
