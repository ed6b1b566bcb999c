"""`attach` with torch.amp.GradScaler: scaled gradients, and steps that the scaler skips."""

import math

import pytest
import torch

from gradclip.backends.torch import attach
from tests.backends.torch.wrappers import sgd

OVERFLOWS = ["propagate", "error", "zero"]


def scaled_step(p, optimizer, scaler, value, unscale):
    optimizer.zero_grad()
    scaler.scale((p * value).sum()).backward()
    if unscale:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("nonfinite", OVERFLOWS)
@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("max_value", [None, 40.0])
def test_a_step_that_the_scaler_skips_is_told_the_same_fused_or_not(nonfinite, unscale, max_value):
    told = []
    for fused in (False, True):
        p, optimizer = sgd(fused=fused)
        clipping = attach(optimizer, 1.0, nonfinite=nonfinite, max_value=max_value)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        seen = []
        for value in (math.inf, 50.0, math.nan, 0.01, math.inf):
            scaled_step(p, optimizer, scaler, value, unscale)
            seen.append([clipping.norm, clipping.coefficient, clipping.clipped, scaler.get_scale(), p.tolist()])
        told.append(seen)
    assert told[0] == told[1]
    assert told[0][0][0] is None, "no step was taken yet"
    assert told[0][2][:3] == told[0][1][:3], "as it was"
    assert told[0][1][0] == (100 if max_value is None else 80)


@pytest.mark.parametrize("nonfinite", ["error", "zero"])
def test_what_the_scaler_did_not_see_is_not_its_own(nonfinite):
    p, optimizer = sgd(fused=True)
    clipping = attach(optimizer, 1.0, nonfinite=nonfinite)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(p.sum()).backward()
    scaler.unscale_(optimizer)
    p.grad[0] = math.nan
    if nonfinite == "error":
        with pytest.raises(FloatingPointError, match="NaN or inf"):
            scaler.step(optimizer)
    else:
        scaler.step(optimizer)
        assert clipping.clipped
        assert clipping.coefficient == 0
    assert not p.any()


def test_scaled_gradients_are_clipped_by_their_unscaled_norm_at_any_magnitude():
    p, optimizer = sgd(fused=True)
    clipping = attach(optimizer, 1e30, eps=1.0, max_value=3e33)
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    scaled_step(p, optimizer, scaler, 2e33, unscale=False)
    assert float(clipping.norm) == pytest.approx(4e33), "four times 1.3e38 has no norm in float32"
    assert (p.detach() / 1e30).tolist() == pytest.approx([-0.5] * 4)
    scaled_step(p, optimizer, scaler, 5e33, unscale=False)
    assert float(clipping.norm) == pytest.approx(6e33)


def test_an_optimizer_that_takes_the_scaler_itself_is_refused():
    class Old(torch.optim.SGD):
        _step_supports_amp_scaling = True

        @torch.no_grad()
        def step(self, closure=None, *, grad_scaler=None):
            raise AssertionError

    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = Old([p])
    attach(optimizer, 1.0)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(p.sum()).backward()
    words = r"Old\.step\(\) takes the GradScaler itself.*call scaler\.unscale_\(optimizer\) and clip_grad_norm_\(\)"
    with pytest.warns(FutureWarning, match="GradScaler is going to stop"), pytest.raises(TypeError, match=words):
        scaler.step(optimizer)


@pytest.mark.parametrize("scale", [torch.tensor(1024.0), torch.tensor([1024.0]), None])
def test_a_loss_scale_that_the_user_sets(scale):
    p, optimizer = sgd(50.0 * (1 if scale is None else 1024), fused=True)
    clipping = attach(optimizer, 1.0)
    optimizer.grad_scale = scale
    optimizer.step()
    assert clipping.norm == 100
    assert float(p.detach().norm()) == pytest.approx(1)
    assert optimizer.grad_scale is scale
