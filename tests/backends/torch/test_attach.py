"""Clipping in the optimizer is clipping before its step, with every kind of optimizer and with loss scaling."""

import copy
import math

import pytest
import torch

from gradclip.backends.torch import attach, clip_grad_norm_, clip_grad_value_
from tests import exact
from tests.backends.torch.helpers import grads, normal, param

FUSED = {
    "Adam": lambda p, **k: torch.optim.Adam(p, lr=0.01, **k),
    "AdamW": lambda p, **k: torch.optim.AdamW(p, lr=0.01, **k),
    "SGD": lambda p, **k: torch.optim.SGD(p, lr=0.01, momentum=0.9, **k),
    "Adagrad": lambda p, **k: torch.optim.Adagrad(p, lr=0.01, **k),
}


def net(dtype=torch.float32):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)).to(dtype)


def loss_of(model, step=0):
    x = normal(32, 8, seed=step, dtype=model[0].weight.dtype)
    return model(x).square().sum() * (10 if step % 2 else 0.001)  # clipped in every other step


def train(model, optimizer, clip=None, steps=6):
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        if clip:
            clip()
        optimizer.step()
    return model


def assert_same(one, other, rtol=0.0, atol=0.0):
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", FUSED)
def test_attached_is_clipped_before_the_step(name):
    mine, other = net(), net()
    optimizer = FUSED[name](mine.parameters())
    attach(optimizer, max_norm=0.5)
    train(mine, optimizer)
    train(other, FUSED[name](other.parameters()), lambda: clip_grad_norm_(other, 0.5))
    assert_same(mine, other)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fused_steps_are_clipped_before_them_too(name, dtype):
    mine, other = net(dtype), net(dtype)
    optimizer = FUSED[name](mine.parameters(), fused=True)
    attributes = set(vars(optimizer))
    clipping = attach(optimizer, max_norm=0.5)
    train(mine, optimizer)
    train(other, FUSED[name](other.parameters(), fused=True), lambda: clip_grad_norm_(other, 0.5))
    assert_same(mine, other)
    assert set(vars(optimizer)) == attributes, "nothing is written to the optimizer"
    assert clipping.clipped


def test_what_the_handle_tells():
    p = param(torch.tensor([3.0, 4.0]))
    optimizer = torch.optim.SGD([p], lr=1.0)
    clipping = attach(optimizer, max_norm=1.0)
    assert clipping.norm is clipping.coefficient is clipping.clipped is None
    optimizer.step()
    assert (clipping.norm, clipping.clipped) == (torch.tensor(5.0), torch.tensor(True))
    assert float(clipping.coefficient) == pytest.approx(0.2)
    assert clipping.norm.shape == clipping.coefficient.shape == clipping.clipped.shape == ()
    p.grad = torch.tensor([0.3, 0.4])
    optimizer.step()
    assert (clipping.coefficient, clipping.clipped) == (torch.tensor(1.0), torch.tensor(False))
    clipping.remove()
    clipping.remove()
    p.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    assert p.grad.tolist() == [3, 4]


def test_groups_by_themselves_and_together():
    def two():
        params = [param(torch.tensor([3.0, 4.0])), param(torch.tensor([0.3, 0.4]))]
        return params, torch.optim.SGD([{"params": [p]} for p in params], lr=0.0)

    params, optimizer = two()
    clipping = attach(optimizer, max_norm=1.0, per_group=True)
    optimizer.step()
    torch.testing.assert_close(grads(params), [torch.tensor([0.6, 0.8]), torch.tensor([0.3, 0.4])])
    torch.testing.assert_close(clipping.norm, torch.tensor([5.0, 0.5]))
    assert clipping.clipped.tolist() == [True, False]
    params, optimizer = two()
    clipping = attach(optimizer, max_norm=1.0)
    optimizer.step()
    assert float(clipping.norm) == pytest.approx(25.25**0.5)


def test_by_value_then_by_norm():
    p, q = param(torch.tensor([3.0, -4.0, 0.5])), param(torch.tensor([3.0, -4.0, 0.5]))
    optimizer = torch.optim.SGD([p], lr=0.0)
    attach(optimizer, max_norm=1.2, max_value=1.0)
    optimizer.step()
    clip_grad_value_(q, 1.0)
    clip_grad_norm_(q, 1.2)
    assert torch.equal(p.grad, q.grad)


def test_every_evaluation_of_a_closure_is_clipped():
    def run(clip):
        model = net()
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
        if clip == "attach":
            attach(optimizer, max_norm=0.05)

        def closure():
            optimizer.zero_grad()
            loss = loss_of(model, 1)
            loss.backward()
            if clip == "closure":
                clip_grad_norm_(model, 0.05)
            return loss

        return model, [optimizer.step(closure).item(), optimizer.step(closure=closure).item()]

    mine, losses = run("attach")
    other, wanted = run("closure")
    assert losses == wanted
    assert_same(mine, other)
    assert run(None)[1] != wanted


UNUSUAL = {
    "overflow": (lambda: torch.full((4,), 1e25), 1.0),
    "underflow": (lambda: torch.full((4,), 1e-30), 1e-31),
    "zero": (lambda: normal(4), 0.0),
    "subnormal": (lambda: normal(4), 1e-42),
    "transposed": (lambda: normal(2, 2).T, 0.1),
}
NEVER_FUSED = {  # of the first, PyTorch's fused steps read what lies behind it in memory; the second they refuse
    "expanded": (lambda: torch.tensor(3.0).expand(4), 0.1),
    "negated": (lambda: torch._neg_view(normal(4)), 0.1),
}


@pytest.mark.parametrize(
    ("name", "fused"),
    [*((name, fused) for name in UNUSUAL for fused in (False, True)), *((n, False) for n in NEVER_FUSED)],
)
def test_whatever_is_unusual_is_clipped_the_same(name, fused):
    grad, max_norm = (UNUSUAL | NEVER_FUSED)[name]
    mine, other = param(grad()), param(grad())
    optimizer = torch.optim.SGD([mine], lr=1.0, fused=fused)
    clipping = attach(optimizer, max_norm=max_norm)
    optimizer.step()
    norm = clip_grad_norm_(other, max_norm)
    torch.optim.SGD([other], lr=1.0, fused=fused).step()
    torch.testing.assert_close(mine, other, rtol=1e-6, atol=0)
    assert clipping.norm == norm
    assert clipping.clipped


def test_several_optimizers_schedulers_and_accumulation():
    models = [net(), net()]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in models]
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(o, 0.5) for o in optimizers]
    first, second = (attach(o, max_norm=limit) for o, limit in zip(optimizers, (1e9, 1e-3), strict=True))
    for model, optimizer, scheduler in zip(models, optimizers, schedulers, strict=True):
        for step in range(3):
            loss_of(model, step).backward()
        optimizer.step()
        scheduler.step()
    assert first.norm == second.norm, "that of the accumulated gradients"
    assert (bool(first.clipped), bool(second.clipped)) == (False, True)
    assert optimizers[0].param_groups[0]["lr"] == 0.05


def test_a_state_dict_round_trip_keeps_clipping():
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    clipping = attach(optimizer, max_norm=1e-3)
    train(model, optimizer, steps=2)
    state = copy.deepcopy(optimizer.state_dict())
    assert state.keys() == {"state", "param_groups"}
    optimizer.load_state_dict(state)
    before = clipping.norm
    train(model, optimizer, steps=2)
    assert clipping.norm is not before
    assert clipping.clipped


@pytest.mark.parametrize("fused", [False, True])
def test_nonfinite_gradients(fused):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    clipping = attach(optimizer, max_norm=1.0, nonfinite="zero")
    before = copy.deepcopy(model)
    loss_of(model).backward()
    model[0].weight.grad[0, 0] = torch.nan
    optimizer.step()
    assert_same(model, before)
    assert clipping.norm.isnan()
    clipping.remove()
    attach(optimizer, max_norm=1.0, nonfinite="error")
    model[0].weight.grad[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match=r"optimizer's parameters\[0\]\.grad is NaN or inf"):
        optimizer.step()
    assert_same(model, before)


def test_arguments():
    with pytest.raises(TypeError, match=r"optimizer is a torch\.nn\.modules\.linear\.Linear, expected a torch\.optim"):
        attach(torch.nn.Linear(1, 1), max_norm=1.0)
    optimizer = torch.optim.SGD(net().parameters())
    with pytest.raises(ValueError, match="max_norm=-1"):
        attach(optimizer, max_norm=-1)
    with pytest.raises(ValueError, match="max_value=-1"):
        attach(optimizer, max_value=-1)
    optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30, 3e38])
@pytest.mark.parametrize("ratio", [1e-7, 0.3, 2.0])
def test_what_is_told_is_what_was_applied(dtype, size, ratio):
    """Clause 5 of the contract: norm, coefficient and clipped, also where the norm overflows."""
    before = torch.tensor([1.0, -0.5, 0.75, 0.875], dtype=torch.float64).mul(size).to(dtype)
    p = param(before.clone())
    norm = float(exact.norm(before.double().tolist()))
    optimizer = torch.optim.SGD([p], lr=0.0)
    clipping = attach(optimizer, norm * ratio)
    optimizer.step()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert clipping.coefficient.dtype == clipping.norm.dtype == wide
    assert float(clipping.coefficient) == pytest.approx(min(1.0, ratio), rel=1e-6)
    assert float(p.grad[0].double() / before[0].double()) == pytest.approx(
        min(1.0, ratio), rel=torch.finfo(dtype).eps * 2
    )
    assert bool(clipping.clipped) == (ratio < 1)
    told = float(clipping.norm)
    assert told == (math.inf if norm > torch.finfo(wide).max else pytest.approx(norm, rel=1e-6))


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_bounds_do_not_hide_what_was_not_finite(bad):
    """The gradient's own inf is told, though it would be within the bounds by the time the norm is taken."""
    p = param(torch.tensor([bad, 1.0]))
    optimizer = torch.optim.SGD([p], lr=0.0)
    clipping = attach(optimizer, 1.0, max_value=0.5, nonfinite="zero")
    optimizer.step()
    assert float(clipping.norm) == pytest.approx(bad, nan_ok=True)
    assert (float(clipping.coefficient), bool(clipping.clipped)) == (0.0, True)
    assert p.grad.tolist() == [0.0, 0.0]
