"""Param groups with a threshold of their own, and groups that are left out."""

import io
import math

import pytest
import torch

from gradclip.backends.torch import attach, clip_grad_norm_, clip_grad_value_, explain, get_total_norm, grad_norms
from gradclip.policies import AdaGC, AutoClip, EmaClip, Fixed, QuantileClip, SkipStep, ZClip
from tests.backends.torch.helpers import param


def groups(**second: object) -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
    params = [param(torch.tensor([3.0, 4.0])), param(torch.tensor([30.0, 40.0]))]
    return params, torch.optim.SGD([{"params": params[:1]}, {"params": params[1:], **second}], lr=0.0)


def test_a_group_that_is_left_out_is_neither_measured_nor_clipped():
    params, optimizer = groups(clip=False)
    handle = attach(optimizer, 1.0)
    optimizer.step()
    assert handle.norm == 5
    assert params[1].grad.tolist() == [30, 40]
    torch.testing.assert_close(params[0].grad, torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize("source", [lambda o: o, lambda o: o.param_groups])
def test_functions_leave_it_out_too(source):
    params, optimizer = groups(clip=False)
    assert clip_grad_norm_(source(optimizer), 1.0) == 5
    assert params[1].grad.tolist() == [30, 40]
    clip_grad_value_(source(optimizer), 0.1)
    assert params[1].grad.tolist() == [30, 40]
    assert len(grad_norms(source(optimizer))) == len(explain(source(optimizer))) == 1
    assert get_total_norm(optimizer) < 1


def test_a_group_with_a_threshold_of_its_own():
    params, optimizer = groups(max_norm=10.0)
    handle = attach(optimizer, 1.0)
    optimizer.step()
    assert handle.norm == 5, "the norm of the groups without one"
    torch.testing.assert_close(params[0].grad, torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(params[1].grad, torch.tensor([6.0, 8.0]))


def test_clip_grad_norm_honours_it():
    params, optimizer = groups(max_norm=10.0)
    assert clip_grad_norm_(optimizer, 1.0) == 5
    torch.testing.assert_close(params[0].grad, torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(params[1].grad, torch.tensor([6.0, 8.0]))


def test_a_policy_of_its_own():
    params, optimizer = groups(max_norm=EmaClip(1.1))
    handle = attach(optimizer, 1.0)
    optimizer.step()
    params[1].grad = torch.tensor([300.0, 400.0])
    optimizer.step()
    assert params[1].grad.norm() < 60
    assert set(handle.state_dict()["policies"]) == {"group 1"}
    with pytest.raises(TypeError, match=r"param_groups\[1\]\['max_norm'\] is a policy.*attach"):
        clip_grad_norm_(optimizer, 1.0)


@pytest.mark.parametrize(
    ("keys", "error", "words"),
    [
        ({"clip": 0}, TypeError, r"param_groups\[1\]\['clip'\] is 0, expected True or False"),
        ({"max_norm": -1.0}, ValueError, r"param_groups\[1\]\['max_norm'\]=-1.0"),
        ({"max_norm": "much"}, TypeError, r"param_groups\[1\]\['max_norm'\]"),
        ({"max_norm": ZClip}, TypeError, r"param_groups\[1\]\['max_norm'\] is the class ZClip.*pass ZClip\(\)"),
        ({"max_norm": math.nan}, ValueError, r"param_groups\[1\]\['max_norm'\]"),
    ],
)
def test_bad_values_are_named_with_the_group(keys, error, words):
    _, optimizer = groups(**keys)
    with pytest.raises(error, match=words):
        attach(optimizer, 1.0)
    with pytest.raises(error, match=words):
        clip_grad_norm_(optimizer, 1.0)


def test_the_keys_survive_a_checkpoint():
    _, optimizer = groups(clip=False)
    _, other = groups()
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[1]["clip"] is False


def test_per_group_with_a_policy_has_a_state_for_each():
    _, optimizer = groups()
    handle = attach(optimizer, ZClip(), per_group=True)
    optimizer.step()
    assert set(handle.state_dict()["policies"]) == {"group 0", "group 1"}
    assert handle.norm.tolist() == [5, 50]
    assert handle.threshold.shape == (2,)


@pytest.mark.parametrize(
    "policy", [AdaGC(), AutoClip(), EmaClip(1.1), Fixed(math.inf), QuantileClip(), SkipStep(), ZClip(max_norm=None)]
)
def test_a_checkpoint_with_a_policy_loads_weights_only(policy):
    _, optimizer = groups(max_norm=policy)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    _, other = groups()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.param_groups[1]["max_norm"] == policy


@pytest.mark.parametrize("policy", [AutoClip(window=8), EmaClip(1.1), ZClip(), 2.0])
def test_a_policy_that_takes_the_place_of_another_begins_anew(policy):
    params, optimizer = groups(max_norm=AutoClip(window=4))
    handle = attach(optimizer, 1.0)
    for _ in range(3):
        params[1].grad = torch.tensor([3.0, 4.0])
        optimizer.step()
    optimizer.param_groups[1]["max_norm"] = policy
    params[1].grad = torch.tensor([300.0, 400.0])
    optimizer.step()
    again, other = groups(max_norm=policy)
    fresh = attach(other, 1.0)
    again[1].grad = torch.tensor([300.0, 400.0])
    other.step()
    assert torch.equal(params[1].grad, again[1].grad)
    if not isinstance(policy, float):
        assert handle.state_dict() == fresh.state_dict()


def test_a_policy_for_each_group_that_takes_the_place_of_another_begins_anew():
    _, optimizer = groups()
    handle = attach(optimizer, ZClip(), per_group=True)
    optimizer.step()
    handle.max_norm = AutoClip(window=4)
    assert handle.state_dict() == {"policies": {}}
    optimizer.step()
    assert handle.threshold.shape == (2,)


def test_no_group_is_clipped():
    params, optimizer = groups(clip=False)
    optimizer.param_groups[0]["clip"] = False
    for per_group in (False, True):
        handle = attach(optimizer, ZClip(), per_group=per_group)
        optimizer.step()
        assert [p.grad.tolist() for p in params] == [[3, 4], [30, 40]]
        assert not handle.clipped.any()
