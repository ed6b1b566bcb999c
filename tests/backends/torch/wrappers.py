"""Optimizers for the tests of `attach`: a plain one, and wrappers as other libraries have them."""

from collections import OrderedDict

import torch

from tests.backends.torch.helpers import param


def sgd(value=50.0, n=4, **kwargs):
    """Return a parameter of zeros with a gradient, and a step of which moves by the gradient."""
    p = param(torch.full((n,), value))
    return p, torch.optim.SGD([p], lr=1.0, **kwargs)


def moved(p, step, value=50.0):
    """Return how far a step moves a parameter whose gradient has this value in each element."""
    before = p.detach().clone()
    p.grad = torch.full_like(p, value)
    step()
    return float((p - before).detach().norm())


class Bare(torch.optim.Optimizer):
    """A wrapper that never calls Optimizer.__init__: no hook that is registered with it is ever run."""

    def __init__(self, inner, name):
        setattr(self, name, inner)
        self._inner = inner if name[0] != "_" else getattr(self, name)
        self.param_groups = inner.param_groups

    def step(self, closure=None):
        return self._inner.step(closure)


class WithHooks(Bare):
    """As timm's Lookahead: hooks can be registered."""

    def __init__(self, inner, name):
        super().__init__(inner, name)
        self._optimizer_step_pre_hooks = OrderedDict()
        self._optimizer_step_post_hooks = OrderedDict()


class Shares(torch.optim.SGD):
    """As Fabric's: it has all that the inner optimizer has, its hooks too."""

    def __init__(self, inner):
        self.__dict__.update(inner.__dict__)
        self._inner = inner

    def step(self, closure=None):
        return self._inner.step(closure)


class Shows(torch.optim.Optimizer):
    """The inner optimizer is in a property."""

    def __init__(self, inner):
        self._inner = inner

    @property
    def optimizer(self):
        return self._inner

    @property
    def param_groups(self):
        return self._inner.param_groups

    def step(self, closure=None):
        return self._inner.step(closure)
