"""One clipping of an optimizer's gradients: groups, gradients of any kind, no write before all are checked."""

import math
from typing import NamedTuple

import pytest
import torch

from gradclip.backends.torch import attach, clip_grad_norm_
from gradclip.backends.torch._step import Told, together
from gradclip.policies import AdaGC
from tests.backends.torch.helpers import param
from tests.backends.torch.wrappers import sgd


@pytest.mark.parametrize("eps", [1e-6, 10.0, torch.tensor(10.0)])
@pytest.mark.parametrize("fused", [False, True])
def test_eps(eps, fused):
    p, optimizer = sgd(fused=fused)
    q, other = sgd()
    clipping = attach(optimizer, 1.0, eps=eps)
    optimizer.step()
    clip_grad_norm_(q, 1.0, eps=float(eps))
    other.step()
    assert torch.equal(p, q)
    assert float(clipping.coefficient) == pytest.approx(1 / (100 + float(eps)))
    with pytest.raises(ValueError, match="eps=-1"):
        attach(optimizer, 1.0, eps=-1.0)


def test_groups_of_any_kind():
    kinds = {
        "none": None,
        "double": torch.full((2,), 3e200, dtype=torch.float64),
        "half": torch.full((2,), 30000.0, dtype=torch.float16),
        "complex": torch.full((2,), 3 + 4j),
        "empty": torch.zeros(0),
    }
    params = [torch.nn.Parameter(torch.zeros(2, dtype=torch.float32 if g is None else g.dtype)) for g in kinds.values()]
    params[-1] = torch.nn.Parameter(torch.zeros(0))
    for p, g in zip(params, kinds.values(), strict=True):
        p.grad = g
    optimizer = torch.optim.SGD([{"params": [p]} for p in params], lr=0.0)
    clipping = attach(optimizer, 1.0, per_group=True)
    optimizer.step()
    assert clipping.norm.dtype == torch.float64
    assert clipping.norm.tolist() == pytest.approx([0, 3e200 * 2**0.5, 30000 * 2**0.5, 50**0.5, 0])
    assert clipping.clipped.tolist() == [False, True, True, True, False]
    assert [float(p.grad.norm()) for p in params[1:]] == pytest.approx([1, 1, 1, 0], rel=1e-3)


def test_norms_of_several_devices_are_told_on_the_first():
    here = Told(torch.tensor(1.0), torch.tensor(0.5), torch.tensor(True))
    there = Told(*(torch.empty_like(x, device="meta") for x in here[:3]))
    assert [x.device.type for x in together([there, here])[:4]] == ["meta"] * 4
    assert [x.tolist() for x in together([here, here])[:3]] == [[1, 1], [0.5, 0.5], [True, True]]
    assert together([here, here]).threshold.tolist() == [math.inf] * 2


@pytest.mark.parametrize("bound", [None, 1.0])
def test_nothing_is_written_before_the_last_group_was_checked(bound):
    params = [param(torch.full((2,), 50.0)), param(torch.tensor([50.0, math.inf]))]
    optimizer = torch.optim.SGD([{"params": [p]} for p in params], lr=1.0)
    attach(optimizer, 1.0, nonfinite="error", per_group=True, max_value=bound)
    with pytest.raises(FloatingPointError, match=r"optimizer's param_groups\[1\]\[0\]\.grad"):
        optimizer.step()
    assert params[0].grad.tolist() == [50, 50]


@pytest.mark.parametrize("bound", [None, 1.0])
def test_nothing_is_written_if_a_gradient_of_the_last_group_cannot_be(bound):
    params = [param(torch.full((2,), 50.0)), torch.nn.Parameter(torch.zeros(2, 2))]
    params[1].grad = torch.as_strided(torch.ones(3), (2, 2), (1, 1))
    optimizer = torch.optim.SGD([{"params": [p]} for p in params], lr=1.0)
    attach(optimizer, 1.0, per_group=True, max_value=bound)
    with pytest.raises(ValueError, match="overlaps itself in memory"):
        optimizer.step()
    assert params[0].grad.tolist() == [50, 50]


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_zero_is_decided_before_bounds_hide_what_overflowed(bad):
    p, optimizer = sgd()
    clipping = attach(optimizer, 1.0, nonfinite="zero", max_value=1.0)
    p.grad[1] = bad
    optimizer.step()
    assert not p.any()
    assert (clipping.coefficient, clipping.clipped) == (0, True)
    assert not clipping.norm.isfinite()


def test_parameters_without_gradients_and_groups_that_come_later():
    p = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([p], lr=1.0)
    clipping = attach(optimizer, 1.0)
    optimizer.step()
    assert (clipping.norm, clipping.coefficient, clipping.clipped) == (0, 1, False)
    q = param(torch.tensor([30.0, 40.0]))
    optimizer.add_param_group({"params": [q]})
    optimizer.step()
    assert clipping.norm == 50
    assert q.tolist() == pytest.approx([-0.6, -0.8])


def test_sparse_gradients():
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SparseAdam(embedding.parameters())
    clipping = attach(optimizer, 1.0)
    embedding(torch.tensor([1, 1, 2])).sum().mul(50).backward()
    optimizer.step()
    assert float(clipping.norm) == pytest.approx(math.sqrt(2 * (100**2 + 50**2)))
    assert float(embedding.weight.grad.coalesce().values().norm()) == pytest.approx(1)


class Nothing(NamedTuple):
    """The state of a policy that has none."""


class Refuses(NamedTuple):
    """A policy of a user's own, which raises an error."""

    skips: bool = False
    per_leaf: bool = False

    def init(self, like):
        return Nothing()

    def update(self, state, norm):
        raise ValueError("the norm is too large")


def test_nothing_is_written_before_a_policy_has_decided():
    p = param(torch.zeros(2))
    optimizer = torch.optim.SGD([p], lr=0.0)
    attach(optimizer, AdaGC(warmup_steps=1), max_value=0.5)
    p.grad = torch.tensor([3.0, -4.0])
    optimizer.step()
    torch.testing.assert_close(p.grad, torch.tensor([0.5, -0.5]))
    other = param(torch.tensor([7.0]))
    optimizer.add_param_group({"params": [other]})
    p.grad = torch.tensor([3.0, -4.0])
    with pytest.raises(ValueError, match="there are 2 gradients, expected 1 as in the steps before"):
        optimizer.step()
    assert p.grad.tolist() == [3.0, -4.0]
    assert other.grad.tolist() == [7.0]
    attach(optimizer, Refuses(), max_value=0.5)
    with pytest.raises(ValueError, match="too large"):
        optimizer.step()
    assert p.grad.tolist() == [3.0, -4.0]
