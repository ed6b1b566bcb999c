"""Clipping in the backward pass: each gradient by itself, before an optimizer in the backward pass uses it."""

import copy
import math
import pickle

import pytest
import torch

from gradclip.backends.torch import clip_grad_norm_, clip_in_backward
from tests.backends.torch.helpers import normal


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))


def backward(model):
    (model(normal(16, 4)).square().sum() * 3).backward()
    return model


def test_each_gradient_by_its_own_norm():
    mine, other = net(), backward(net())
    clip_in_backward(mine, 0.5)
    backward(mine)
    for p, q in zip(mine.parameters(), other.parameters(), strict=True):
        clip_grad_norm_(q, 0.5)
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("by", ["rms", "value"])
def test_by_root_mean_square_and_by_value(by):
    mine, other = net(), backward(net())
    clip_in_backward(mine, 0.1, by=by)
    backward(mine)
    for p, q in zip(mine.parameters(), other.parameters(), strict=True):
        if by == "value":
            want = q.grad.clamp(-0.1, 0.1)
        else:
            want = q.grad * min(1, 0.1 / q.grad.double().square().mean().sqrt().item())
        torch.testing.assert_close(p.grad, want)


def test_an_optimizer_in_the_backward_pass():
    model, other = net(), net()
    clip_in_backward(model, 0.5)
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def step(p):
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    backward(model)
    assert all(p.grad is None for p in model.parameters())
    backward(other)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        clip_grad_norm_(q, 0.5)
        torch.testing.assert_close(p.detach(), (q - 0.1 * q.grad).detach())


def test_tied_parameters_are_clipped_once_when_all_has_come():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(3, 3, bias=False)
            self.second = torch.nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    torch.manual_seed(0)
    model = Tied()
    clip_in_backward(model, 0.5)
    (model(normal(4, 3)).square().sum() * 100).backward()
    assert float(model.first.weight.grad.norm()) == pytest.approx(0.5)


def test_removed_hooks_clip_no_longer():
    model, other = net(), backward(net())
    clipping = clip_in_backward(model, 0.5)
    clipping.remove()
    clipping.remove()
    backward(model)
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), other.parameters(), strict=True))


def test_a_global_norm_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"by=\"global_norm\" cannot be had .* use clip_grad_norm_\(\) or attach\(\)"):
        clip_in_backward(net(), 1.0, by="global_norm")


@pytest.mark.parametrize("bad", [-1.0, math.nan])
def test_arguments(bad):
    with pytest.raises(ValueError, match="threshold="):
        clip_in_backward(net(), bad)
    with pytest.raises(ValueError, match="by='size', expected"):
        clip_in_backward(net(), 1.0, by="size")
    with pytest.raises(TypeError, match=r"model is a list, expected a torch\.nn\.Module"):
        clip_in_backward([], 1.0)


def test_a_threshold_that_changes():
    p = torch.nn.Parameter(torch.zeros(2))
    model = torch.nn.ParameterList([p])

    def clipped():
        p.grad = None
        (p * torch.tensor([3.0, 4.0])).sum().backward()
        return float(p.grad.norm())

    clipping = clip_in_backward(model, limit := torch.tensor(2.0))
    assert clipped() == pytest.approx(2)
    limit.fill_(1.0)
    assert clipped() == pytest.approx(1)
    clipping.threshold = 0.5
    assert clipped() == pytest.approx(0.5)
    with pytest.raises(ValueError, match="threshold=-1"):
        clipping.threshold = -1.0
    with pytest.raises(AttributeError):
        clipping.by = "value"
    assert repr(clipping) == "BackwardClipping(threshold=0.5, by='norm', attached to 1 parameter)"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_the_handle_clips_nothing_and_says_so(copied):
    model = net()
    clipping = clip_in_backward(model, 0.5)
    with pytest.warns(UserWarning, match=r"a copy of a BackwardClipping clips nothing.*call clip_in_backward\(model"):
        other = copied(clipping)
    assert repr(other) == "BackwardClipping(threshold=0.5, by='norm', attached to no parameters)"
    other.remove()
    assert float(backward(model)[0].weight.grad.norm()) <= 0.5 + 1e-6, "the first one still clips"
    clipping.remove()
    assert repr(copied(clipping)) == repr(other), "without a warning, as it clipped nothing"


@pytest.mark.parametrize("sparse", [False, True])
def test_the_root_mean_square_of_a_sparse_gradient_is_that_of_the_whole(sparse):
    embedding = torch.nn.Embedding(10, 3, sparse=sparse)
    clip_in_backward(embedding, 1.0, by="rms")
    (embedding(torch.tensor([1, 1, 2])) * 50).sum().backward()
    grad = embedding.weight.grad.to_dense()
    assert float(grad.square().mean().sqrt()) == pytest.approx(1)
