"""`PolicyStates` and `Rows`: gradients that are missing in a step, and states that are of other policies."""

import pytest
import torch

from gradclip.backends.torch import attach
from gradclip.policies import AdaGC, EmaClip, ZClip
from tests.backends.torch.helpers import param

EACH = [AdaGC(warmup_steps=2), EmaClip(1.1)]


def several(n: int, **keys: object) -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
    params = [param(torch.zeros(2)) for _ in range(n)]
    for p in params:
        p.grad = None
    return params, torch.optim.SGD([{"params": params, **keys}], lr=0.0)


def step(params: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, norms: list[float | None]) -> None:
    for p, norm in zip(params, norms, strict=True):
        p.grad = None if norm is None else torch.tensor([0.6, 0.8]) * norm
    optimizer.step()


@pytest.mark.parametrize("policy", EACH, ids=lambda p: type(p).__name__)
def test_a_gradient_that_is_missing_is_one_of_zeros(policy):
    """Experts without tokens have no gradient, and each keeps its own threshold."""
    steps = [
        [None, 5.0, None], [1.0, None, 0.2], [1.0, 5.0, None], [None, None, None], [None, 5.0, 0.2], [1.0, 5.0, 0.2],
        [9.0, None, 0.2], [None, 9.0, None], [9.0, 9.0, 9.0],
    ]  # fmt: skip
    params, optimizer = several(3)
    zeros, other = several(3)
    handle, wanted = attach(optimizer, policy), attach(other, policy)
    for norms in steps:
        step(params, optimizer, norms)
        step(zeros, other, [0.0 if norm is None else norm for norm in norms])
        for p, q, norm in zip(params, zeros, norms, strict=True):
            assert norm is None or torch.equal(p.grad, q.grad)
        assert torch.equal(handle.norm, wanted.norm)
    assert handle.state_dict() == wanted.state_dict()


@pytest.mark.parametrize("policy", EACH, ids=lambda p: type(p).__name__)
def test_a_run_that_is_resumed_knows_which_gradients_were_missing(policy):
    params, optimizer = several(2)
    handle = attach(optimizer, policy)
    for norms in ([1.0, None], [1.0, None], [None, 5.0]):
        step(params, optimizer, norms)
    again, other = several(2)
    resumed = attach(other, policy)
    resumed.load_state_dict(handle.state_dict())
    for norms in ([None, 50.0], [50.0, None], [50.0, 50.0]):
        step(params, optimizer, norms)
        step(again, other, norms)
        assert [p.grad is None or torch.equal(p.grad, q.grad) for p, q in zip(params, again, strict=True)]
    assert handle.state_dict() == resumed.state_dict()


def test_frozen_and_tied_parameters_have_no_threshold():
    params, optimizer = several(3)
    params[0].requires_grad_(False)
    optimizer.add_param_group({"params": [param(torch.zeros(2))]})
    optimizer.param_groups[1]["params"] = [params[1]]  # tied
    handle = attach(optimizer, EmaClip(1.1))
    step(params, optimizer, [None, 1.0, 2.0])
    assert len(handle.state_dict()["policies"]["all"]["mean"]) == 2
    params[0].requires_grad_(True)
    params[1].grad, params[2].grad = torch.ones(2), torch.ones(2)
    with pytest.raises(ValueError, match="mean of EmaClip has 2 elements, expected 3, one for each parameter"):
        optimizer.step()
    assert params[1].grad.tolist() == [1, 1]


def test_a_state_of_other_parts_is_refused():
    params, optimizer = several(1)
    handle = attach(optimizer, ZClip(), per_group=True)
    step(params, optimizer, [1.0])
    other = attach(optimizer, ZClip())
    other.load_state_dict(handle.state_dict())
    for _ in range(2):
        with pytest.raises(ValueError, match=r"has policies for \['group 0'\], expected \['all'\]"):
            step(params, optimizer, [2.0])
        assert params[0].grad.norm() == 2
    other.max_norm = None
    other.load_state_dict({"policies": {}})
    step(params, optimizer, [2.0])
