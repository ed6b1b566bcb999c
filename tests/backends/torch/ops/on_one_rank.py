"""What a process does that is the only rank, as of torchrun on one device; test_sharded.py starts it."""

import warnings

import torch
from torch import nn
from torch.distributed import group as groups
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from gradclip.backends.torch import (
    attach,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    explain,
    get_total_norm,
    grad_norms,
)
from gradclip.policies import AdaGC, ZClip
from tests.backends.torch.ops.on_ranks import Checks, assert_as_on_one, backward, main, net

check = Checks()


def sharded(scale: float = 1.0) -> nn.Module:
    """A model of FSDP2 with gradients; the only rank has all of it."""
    model = net()
    for layer in (model.up, model.down):
        fully_shard(layer)
    fully_shard(model)
    backward(model, scale)
    assert all(isinstance(p.grad, DTensor) for p in model.parameters())
    return model


@check
def fsdp2_is_clipped_as_one_process() -> None:
    for scale in (1.0, 1e30, 1e-25):
        assert_as_on_one(sharded(scale), lambda m, most=scale: clip_grad_norm_(m.parameters(), most))
    assert_as_on_one(sharded(), lambda m: clip_grad_norm_(m, 0.5, group=groups.WORLD))
    assert_as_on_one(sharded(), lambda m: clip_grads_with_norm_(m.parameters(), 0.5, get_total_norm(m)))
    assert_as_on_one(sharded(), lambda m: clip_grad_value_(m.parameters(), 0.01))


@check
def norms_of_each_are_plain_tensors() -> None:
    model = sharded()
    assert {type(norm) for norm in grad_norms(model).values()} == {torch.Tensor}
    assert "5 of 5 parameters" in str(explain(model))


@check
def attach_clips_by_numbers_and_policies() -> None:
    for limit in (0.5, ZClip(max_norm=0.5), AdaGC()):
        model = sharded()
        optimizer = torch.optim.AdamW(model.parameters())
        clipping = attach(optimizer, limit)
        optimizer.step()
        assert type(clipping.norm) is torch.Tensor


@check
def plain_parameters_beside_dtensors_are_no_question() -> None:
    mesh = init_device_mesh("cpu", (1,))
    split, plain = nn.Parameter(distribute_tensor(torch.zeros(2), mesh, [Shard(0)])), nn.Parameter(torch.zeros(2))
    split.grad, plain.grad = distribute_tensor(torch.tensor([3.0, 0.0]), mesh, [Shard(0)]), torch.tensor([0.0, 4.0])
    assert float(clip_grad_norm_([split, plain], 1.0)) == 5
    torch.testing.assert_close(plain.grad, torch.tensor([0.0, 0.8]))
    torch.testing.assert_close(split.grad.to_local(), torch.tensor([0.6, 0.0]))


@check
def a_compiled_call_has_the_same_norm() -> None:
    model, other = sharded(), sharded()
    compiled = torch.compile(lambda ps: clip_grad_norm_(ps, 0.5), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(list(model.parameters())), clip_grad_norm_(other.parameters(), 0.5))


@check
def wrappers_of_plain_parameters_need_no_group() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FSDP1 says that it does not split anything, and that it is old
        models = [
            nn.parallel.DistributedDataParallel(net()),
            FullyShardedDataParallel(net(), device_id=torch.device("cpu"), use_orig_params=True),
        ]
    for model in models:
        backward(model)
        want = get_total_norm([p.grad for p in model.parameters()])
        assert torch.equal(clip_grad_norm_(model.parameters(), 0.5), want)


if __name__ == "__main__":
    main(check)
