"""Loss scaling: in the documented order of torch.amp, in one pass, and in the optimizer, all train alike."""

import pytest
import torch

from gradclip.backends.torch import attach, clip_grad_norm_
from tests import exact
from tests.backends.torch.helpers import normal, param, values
from tests.backends.torch.test_attach import assert_same, loss_of, net


@pytest.mark.parametrize("scale", [65536.0, torch.tensor(65536.0), 3.0])
@pytest.mark.parametrize("max_norm", [0.5, 1e9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_scaled_gradients_are_unscaled_and_clipped_in_one_pass(scale, max_norm, dtype):
    unscaled = normal(300, dtype=torch.float64) / 1000
    p = param((unscaled * float(scale)).to(dtype))
    before = values(p.grad)
    norm = clip_grad_norm_(p, max_norm, scale=scale)
    right = exact.norm(before) / float(scale)
    assert exact.relative_error(float(norm), right) < (1e-14 if dtype == torch.float64 else 1e-6)
    factor = min(1, max_norm / right) / float(scale)
    eps = {torch.float32: 3e-7, torch.float16: 2.0**-11, torch.float64: 4e-16}[dtype]
    for got, was in zip(values(p.grad), before, strict=True):
        assert abs(got - was * factor) <= abs(was * factor) * eps + (2.0**-24 if dtype == torch.float16 else 0)


def amp(model, optimizer, between):
    """Train in the order that torch.amp documents, with an overflow in the third step."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    scales = []
    for step in range(8):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        if step == 2:
            model[0].weight.grad[0, 0] = torch.inf
        between(scaler)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return scales


def unscale_then_clip(model, optimizer, clip):
    def between(scaler):
        scaler.unscale_(optimizer)
        clip(model.parameters())

    return amp(model, optimizer, between)


@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler_in_the_documented_order_and_attached(fused):
    models = [net() for _ in range(3)]
    optimizers = [torch.optim.AdamW(m.parameters(), lr=0.01, fused=fused) for m in models]
    theirs = unscale_then_clip(models[0], optimizers[0], lambda p: torch.nn.utils.clip_grad_norm_(p, 0.5))
    ours = unscale_then_clip(models[1], optimizers[1], lambda p: clip_grad_norm_(p, 0.5))
    clipping = attach(optimizers[2], max_norm=0.5)
    attached = amp(models[2], optimizers[2], lambda scaler: None)
    assert theirs == ours == attached
    assert ours[2] < ours[1], "one step overflowed"
    assert_same(models[0], models[1], rtol=1e-4, atol=1e-6)
    assert_same(models[1], models[2], rtol=2e-6, atol=1e-7)
    assert bool(clipping.clipped)
    assert clipping.norm < 1024, "that of the unscaled gradients"


def test_scale_trains_like_unscaling_first():
    one, two = net(), net()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (one, two)]
    for step in range(6):
        for model, optimizer in zip((one, two), optimizers, strict=True):
            optimizer.zero_grad()
            (loss_of(model, step) * 4096.0).backward()
            if model is one:
                clip_grad_norm_(model, 0.5, scale=4096.0)
            else:
                for p in model.parameters():
                    p.grad /= 4096.0
                clip_grad_norm_(model, 0.5)
            optimizer.step()
    assert_same(one, two, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_that_are_none(scale):
    with pytest.raises(ValueError, match="scale="):
        clip_grad_norm_(param(torch.ones(2)), 1.0, scale=scale)
