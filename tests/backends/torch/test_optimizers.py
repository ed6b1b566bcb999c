"""`attach` finds the optimizer whose step runs hooks, or refuses; hooks that run twice in a step clip once."""

import pytest
import torch

from gradclip.backends.torch import attach
from tests.backends.torch.helpers import param
from tests.backends.torch.wrappers import Bare, Shares, Shows, WithHooks, moved, sgd

WRAPPERS = {
    "optimizer": lambda o: Bare(o, "optimizer"),
    "base_optimizer": lambda o: Bare(o, "base_optimizer"),
    "with hooks": lambda o: WithHooks(o, "base"),
    "shared": Shares,
    "property": Shows,
    "twice": lambda o: Bare(Shares(o), "original_optimizer"),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("fused", [False, True])
def test_wrappers_are_clipped(wrap, fused):
    p, inner = sgd(fused=fused)
    optimizer = wrap(inner)
    clipping = attach(optimizer, 1.0)
    assert moved(p, optimizer.step) == pytest.approx(1)
    assert float(clipping.norm) == 100
    assert clipping.attached_to(optimizer)
    assert clipping.attached_to(inner)
    clipping.remove()
    assert not clipping.attached_to(optimizer)
    assert moved(p, optimizer.step) == pytest.approx(100)


def pair():
    _p, first = sgd()
    _q, second = sgd()
    optimizer = Bare(first, "optimizer")
    optimizer.second = second
    return optimizer


def partly():
    optimizer = Bare(sgd()[1], "optimizer")
    optimizer.param_groups = [*optimizer.param_groups, {"params": [torch.nn.Parameter(torch.zeros(2))]}]
    return optimizer


class Alone(torch.optim.Optimizer):
    def __init__(self):
        self.param_groups = []

    def step(self):
        pass


def circle():
    optimizer = Alone()
    optimizer.optimizer = optimizer
    return optimizer


REFUSED = {
    "private": (lambda: WithHooks(sgd()[1], "_base_optimizer"), r"a \S+WithHooks whose step\(\) runs no hooks"),
    "two": (pair, r"a \S+Bare whose step\(\) runs no hooks"),
    "a part of the parameters": (partly, r"\(its \.optimizer is one\)"),
    "none": (Alone, r"a \S+Alone whose step\(\) runs no hooks.* Attach to the optimizer that it wraps"),
    "itself": (circle, "runs no hooks"),
    "a scheduler": (lambda: torch.optim.lr_scheduler.ConstantLR(sgd()[1]), r"\(its \.optimizer is one\)"),
    "a list of models": (lambda: [sgd()[0]], r"optimizer is a \S+, expected a torch\.optim\.Optimizer"),
    "nothing": (lambda: None, "optimizer is None, expected"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_clipped_is_refused(case):
    make, words = REFUSED[case]
    optimizer = make()
    with pytest.raises(TypeError, match=words):
        attach(optimizer, 1.0)


class Twice(torch.optim.SGD):
    """Its step calls its parent's, and PyTorch runs the hooks in both."""

    def step(self, closure=None):
        return super().step(closure)


class Named(torch.optim.SGD):
    """Its closure has another name and another place."""

    def step(self, scale=1.0, loss_fn=None):
        return super().step(loss_fn)


@pytest.mark.parametrize("fused", [False, True])
def test_hooks_that_run_twice_in_a_step_clip_once(fused):
    sgd()
    p = param(torch.full((4,), 50.0))
    optimizer = Twice([p], lr=1.0, fused=fused)
    clipping = attach(optimizer, 1.0, eps=100.0)
    assert moved(p, optimizer.step) == pytest.approx(0.5)
    assert (float(clipping.norm), bool(clipping.clipped)) == (100, True)
    assert moved(p, optimizer.step) == pytest.approx(0.5), "and in the next step again"

    def closure():
        p.grad = torch.full((4,), 50.0)

    assert moved(p, lambda: optimizer.step(closure)) == pytest.approx(0.5)
    assert moved(p, lambda: optimizer.step(closure=closure)) == pytest.approx(0.5)
    assert float(clipping.norm) == 100


def test_a_wrapper_whose_class_runs_hooks_later_is_clipped_once():
    class Later(Bare):  # classes of their own, for PyTorch changes them
        pass

    class SharesLater(Shares):
        def step(self, closure=None):
            return self._inner.step(closure)

    p, inner = sgd()
    wrapper = Later(inner, "optimizer")
    wrapper.defaults = {}
    first = attach(wrapper, 1.0)
    wrapper.__setstate__({})
    second = attach(wrapper, 10.0)
    assert moved(p, wrapper.step) == pytest.approx(10)
    assert not first.attached_to(inner)
    second.remove()
    shared = SharesLater(inner)
    attach(shared, 1.0, eps=100.0)
    shared.__setstate__({})
    for step in (shared.step, inner.step, shared.step):
        assert moved(p, step) == pytest.approx(0.5)
    attach(SharesLater(inner), 1.0, eps=100.0)  # which is gone at once
    assert moved(p, inner.step) == pytest.approx(0.5)


def test_closures_of_any_name():
    p = torch.nn.Parameter(torch.zeros(4))
    optimizer = Named([p], lr=1.0)
    clipping = attach(optimizer, 1.0)

    def closure():
        p.grad = torch.full((4,), 50.0)

    optimizer.step(loss_fn=closure)
    optimizer.step(2.0, closure)
    assert float(p.detach().norm()) == pytest.approx(2)
    assert clipping.norm == 100
