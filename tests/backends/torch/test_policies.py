"""`attach` with policies and with several optimizers: thresholds, states, rounds, checkpoints."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch

from gradclip.backends.torch import attach
from gradclip.policies import AdaGC, AutoClip, EmaClip, Fixed, QuantileClip, SkipStep, ZClip
from tests.backends.torch.helpers import param

POLICIES = [
    Fixed(2.0), AutoClip(window=20), EmaClip(1.1), QuantileClip(), ZClip(warmup_steps=3), SkipStep(sigma=3, window=8),
]  # fmt: skip
NORMS = [1.0, 2.0, 1.5, 40.0, math.nan, 1.0, 0.0, 3.0, math.inf, 1.2, 0.8, 900.0, 1.1, 1.0]


def one(dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
    p = param(torch.zeros(2, dtype=dtype))
    return p, torch.optim.SGD([p], lr=0.0)


def set_norm(p: torch.nn.Parameter, norm: float) -> None:
    p.grad = torch.tensor([0.6, 0.8], dtype=p.dtype) * norm


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thresholds_are_those_of_the_policy(policy, dtype):
    p, optimizer = one(dtype)
    handle = attach(optimizer, policy)
    state = policy.init(0.0)
    for norm in NORMS:
        set_norm(p, norm)
        optimizer.step()
        want, state = policy.update(state, norm)
        np.testing.assert_allclose(float(handle.threshold), float(want), rtol=1e-6)
        clipped = policy.skips or not norm > want or math.isinf(norm)
        if math.isfinite(norm):
            torch.testing.assert_close(
                p.grad.double().norm().item(), norm if clipped else float(want), rtol=1e-6, atol=0
            )


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_a_resumed_run_has_the_same_thresholds(policy):
    for stop in (0, 1, 5, 9):
        p, optimizer = one()
        handle = attach(optimizer, policy)
        for norm in NORMS[:stop]:
            set_norm(p, norm)
            optimizer.step()
        file = io.BytesIO()
        torch.save(handle.state_dict(), file)
        file.seek(0)
        q, other = one()
        resumed = attach(other, policy)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        for norm in NORMS[stop:]:
            for x, o in ((p, optimizer), (q, other)):
                set_norm(x, norm)
                o.step()
            assert float(handle.threshold) == float(resumed.threshold)


def test_a_handle_is_copied_and_pickled_with_its_state():
    p, optimizer = one()
    handle = attach(optimizer, ZClip(warmup_steps=2))
    set_norm(p, 1.0)
    optimizer.step()
    for duplicate in (copy.deepcopy, lambda h: pickle.loads(pickle.dumps(h))):
        with pytest.warns(UserWarning, match="attached to no optimizer"):
            other = duplicate(handle)
        assert other.state_dict() == handle.state_dict()


def test_a_state_of_another_policy_is_refused():
    p, optimizer = one()
    handle = attach(optimizer, ZClip())
    handle.load_state_dict({"policies": {"all": {"norms": [1.0]}}})
    set_norm(p, 1.0)
    with pytest.raises(ValueError, match="the saved state has the fields"):
        optimizer.step()
    with pytest.raises(TypeError, match="expected what state_dict"):
        handle.load_state_dict({"state": {}, "param_groups": []})


def test_a_threshold_a_tensor():
    """AdaGC: in the warm-up by the global norm, then each gradient by its own threshold."""
    params = [param(torch.zeros(2)), param(torch.zeros(2))]
    optimizer = torch.optim.SGD(params, lr=0.0)
    handle = attach(optimizer, AdaGC(warmup_steps=2))
    for factor in (1.0, 1.0, 100.0):
        params[0].grad, params[1].grad = torch.tensor([0.3, 0.4]), torch.tensor([0.6, 0.0]) * factor
        optimizer.step()
    torch.testing.assert_close(params[0].grad, torch.tensor([0.3, 0.4])), "only the one that is large is clipped"
    assert params[1].grad.norm() < 1
    assert handle.threshold.shape == (2,)
    assert handle.norm > 50


def test_a_policy_can_be_set_and_a_class_is_refused():
    _, optimizer = one()
    handle = attach(optimizer, 1.0)
    handle.max_norm = ZClip()
    assert handle.max_norm == ZClip()
    with pytest.raises(TypeError, match=r"is the class ZClip, expected a policy; pass ZClip\(\)"):
        handle.max_norm = ZClip
    with pytest.raises(TypeError, match=r"pass AutoClip\(\)"):
        attach(optimizer, AutoClip)


def test_under_a_scaler_the_policy_sees_unscaled_norms():
    for fused in (False, True):
        p = param(torch.zeros(2))
        optimizer = torch.optim.SGD([p], lr=0.1, fused=fused)
        handle = attach(optimizer, EmaClip(1.1))
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for norm in (1.0, 1.0, math.inf, 50.0):
            optimizer.zero_grad()
            scaler.scale((p * torch.tensor([0.6, 0.8]) * norm).sum()).backward()
            before = p.detach().clone()
            scaler.step(optimizer)
            scaler.update()
        assert 50 * 0.9 < handle.norm < 51
        assert float(handle.threshold) < 2, "the overflow did not enter the state"
        torch.testing.assert_close((before - p).norm(), torch.tensor(0.1 * float(handle.threshold)), rtol=1e-4, atol=0)


def test_several_optimizers_have_one_norm():
    a, b = param(torch.zeros(1)), param(torch.zeros(1))
    first, second = torch.optim.SGD([a], lr=1.0), torch.optim.SGD([b], lr=1.0)
    handle = attach([first, second], 1.0)
    for _ in range(2):
        a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
        first.step()
        assert handle.norm == 5
        torch.testing.assert_close(b.grad, torch.tensor([0.8]))
        second.step()
        torch.testing.assert_close(b.grad, torch.tensor([0.8])), "clipped once"
    assert handle.attached_to(first)
    assert handle.attached_to(second)
    handle.remove()
    a.grad = torch.tensor([3.0])
    first.step()
    assert a.grad == 3


def test_gradients_that_changed_in_a_round_are_clipped_again():
    a, b = param(torch.zeros(1)), param(torch.zeros(1))
    first, second = torch.optim.SGD([a], lr=1.0), torch.optim.SGD([b], lr=1.0)
    handle = attach([first, second], 1.0)
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    first.step()
    first.zero_grad()
    b.grad = torch.tensor([7.0])
    second.step()
    assert handle.norm == 7
    assert b.grad == 1


def test_a_round_that_is_skipped_is_skipped_for_all():
    a, b = param(torch.zeros(1)), param(torch.zeros(1))
    first, second = (torch.optim.Adam([x], lr=1.0) for x in (a, b))
    attach([first, second], SkipStep(threshold=1.0))
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    first.step()
    second.step()
    assert (a.item(), b.item()) == (0, 0)
    assert not first.state
    assert not second.state
    assert (a.grad.item(), b.grad.item()) == (3, 4)


def test_what_several_optimizers_cannot_have_is_refused():
    _, optimizer = one()
    for given in ([], [optimizer, optimizer]):
        with pytest.raises(ValueError, match=r"is a sequence of \d optimizers, expected at least one, and each once"):
            attach(given, 1.0)
    _, other = one()
    attach([optimizer, other], 1.0)
    with pytest.raises(TypeError, match="got a closure, expected none"):
        optimizer.step(lambda: 0.0)
    optimizer.grad_scale = torch.tensor(2.0)
    with pytest.raises(RuntimeError, match=r"call scaler.unscale_\(optimizer\) for each optimizer"):
        optimizer.step()


def test_observers_are_called_after_each_clipping():
    p, optimizer = one()
    handle = attach(optimizer, 1.0)
    seen = []
    handle.observers.append(lambda h: seen.append(float(h.norm)))
    for norm in (1.0, 5.0):
        set_norm(p, norm)
        optimizer.step()
    assert seen == pytest.approx([1.0, 5.0])
