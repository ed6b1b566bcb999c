"""A step that is skipped changes nothing: neither parameters nor what the optimizer remembers."""

import copy
import math
import warnings

import pytest
import torch

from gradclip.backends.torch import attach
from gradclip.policies import SkipStep
from tests.backends.torch.helpers import param

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "SGD fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "SGD foreach": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True, weight_decay=0.1),
    "Adam fused": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.1),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.1),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "Adagrad fused": lambda p: torch.optim.Adagrad(p, lr=0.1, fused=True),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.1),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9, centered=True),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.1),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.1),
    "Muon": lambda p: torch.optim.Muon([x for x in p if x.dim() == 2], lr=0.1, weight_decay=0.1),
}


def model() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [param(torch.randn(3, 4)), param(torch.randn(4))]


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def steps(params: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, scales: list[float]) -> None:
    generator = torch.Generator().manual_seed(1)
    for scale in scales:
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator) * scale
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("bad", [1e6, math.inf, math.nan])
def test_a_skipped_step_changes_nothing(name, bad):
    params = model()
    optimizer = OPTIMIZERS[name](params)
    handle = attach(optimizer, SkipStep(threshold=100.0))
    steps(params, optimizer, [1.0, 2.0])
    assert handle.skipped is False
    values, state = [p.detach().clone() for p in params], copy.deepcopy(optimizer.state_dict())
    steps(params, optimizer, [bad])
    assert handle.skipped is True
    assert all(map(torch.equal, params, values))
    assert same(optimizer.state_dict(), state)
    assert all(p.grad is not None for p in params), "gradients are put back"
    steps(params, optimizer, [1.0])
    assert handle.skipped is False
    assert not torch.equal(params[0], values[0]), "the next step is taken"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_step_can_be_skipped(name):
    params = model()
    optimizer = OPTIMIZERS[name](params)
    attach(optimizer, SkipStep(threshold=1e-3))
    values, state = [p.detach().clone() for p in params], copy.deepcopy(optimizer.state_dict())
    steps(params, optimizer, [1.0])
    assert all(map(torch.equal, params, values))
    assert same(optimizer.state_dict(), state)


def test_it_is_as_if_the_batch_had_not_been_there():
    """A run with a bad step between good ones ends where the run without it ends, bit for bit."""
    ends = []
    for scales in ([1.0, 2.0, 1e9, 1.0], [1.0, 2.0, 0.0, 1.0]):
        params = model()
        optimizer = OPTIMIZERS["AdamW"](params)
        attach(optimizer, SkipStep(threshold=100.0))
        generator = torch.Generator().manual_seed(1)
        for scale in scales:
            grads = [torch.randn(p.shape, generator=generator) for p in params]
            if scale == 0.0:
                continue
            for p, g in zip(params, grads, strict=True):
                p.grad = g * scale
            optimizer.step()
        ends.append(params)
    assert all(map(torch.equal, *ends))


def test_lbfgs_with_a_closure():
    params = [torch.nn.Parameter(torch.tensor([3.0, -2.0]))]
    optimizer = torch.optim.LBFGS(params, lr=0.5, max_iter=3)
    factor = [1.0]

    def closure():
        optimizer.zero_grad()
        loss = (params[0] ** 2).sum() * factor[0]
        loss.backward()
        return loss

    handle = attach(optimizer, SkipStep(threshold=100.0))
    optimizer.step(closure)
    values, state = params[0].detach().clone(), copy.deepcopy(optimizer.state_dict())
    factor[0] = 1e9
    optimizer.step(closure)
    assert handle.skipped is True
    assert torch.equal(params[0], values)
    assert same(optimizer.state_dict(), state)
    factor[0] = 1.0
    optimizer.step(closure)
    assert not torch.equal(params[0], values)


def test_sparse_adam():
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SparseAdam(embedding.parameters(), lr=0.1)
    handle = attach(optimizer, SkipStep(threshold=100.0))
    for scale in (1.0, 1e6):
        optimizer.zero_grad()
        (embedding(torch.tensor([1, 3])).sum() * scale).backward()
        before = embedding.weight.detach().clone()
        optimizer.step()
    assert handle.skipped is True
    assert torch.equal(embedding.weight, before)
    assert optimizer.state[embedding.weight]["step"] == 1


def test_under_a_scaler_the_scale_is_not_halved():
    params = model()
    optimizer = torch.optim.SGD(params, lr=0.1)
    handle = attach(optimizer, SkipStep(threshold=100.0))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    values = [p.detach().clone() for p in params]
    scaler.scale(sum((p * 1e4).sum() for p in params)).backward()
    scaler.step(optimizer)
    scaler.update()
    assert handle.skipped is True
    assert scaler.get_scale() == 1024.0
    assert all(map(torch.equal, params, values))


def test_a_scheduler_does_not_notice():
    params = model()
    optimizer = torch.optim.SGD(params, lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    attach(optimizer, SkipStep(threshold=1e-3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(params, optimizer, [1.0])
        schedule.step()


def test_an_error_in_the_step_does_not_lose_gradients():
    class Breaks(torch.optim.SGD):
        def step(self, closure=None):
            raise OSError("disk full")

    params = model()
    optimizer = Breaks(params, lr=0.1)
    handle = attach(optimizer, SkipStep(threshold=100.0))
    for p in params:
        p.grad = torch.full_like(p, 1e6)
    with pytest.raises(OSError, match="disk full"):
        optimizer.step()
    assert handle.skipped is True
    handle.remove()
    assert all(p.grad is not None for p in params)
