"""`SeveralDevices`: each device works on its own leaves, and what it returns is in the leaves' order."""

import math

import pytest
import torch

from gradclip._coefficient import Coefficient
from gradclip._decision import Rule
from gradclip.backends.torch.ops._device import DEVICE
from gradclip.backends.torch.ops._devices import SeveralDevices
from gradclip.backends.torch.ops._host import host_ops
from tests import exact
from tests.backends.torch.helpers import normal, values

ORDERS = [1.0, 2.0, 3.0, math.inf]


@pytest.fixture
def ops():
    """Two devices, both of them the CPU, with the leaves of both mixed."""
    return SeveralDevices({"first": (host_ops(), [0, 3]), "second": (DEVICE, [1, 2])})


def leaves(scale=1.0):
    return [normal(*shape, seed=i) * scale for i, shape in enumerate([(3, 5), (7,), (), (2, 2)])]


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("scale", [1e-38, 1.0, 1e37])
def test_norms_are_in_the_order_of_the_leaves(ops, ord, scale):
    some = leaves(scale)
    each = ops.partials(some, ord)
    for i, x in enumerate(some):
        got = exact.stands_for(float(each.scale[i]), float(each.total[i]), ord)
        assert exact.relative_error(got, exact.norm(values(x), ord)) < 1e-6
    whole = ops.partial(some, ord)
    got = exact.stands_for(float(whole.scale), float(whole.total), ord)
    assert exact.relative_error(got, exact.norm(values(*some), ord)) < 1e-6


@pytest.mark.parametrize("in_place", [False, True])
def test_each_leaf_has_its_own_coefficient(ops, in_place):
    some = leaves()
    want = [x * 2.0**-i for i, x in enumerate(some)]
    coefficients = [Coefficient(2.0**i, 1.0, i > 0) for i in range(4)]
    if in_place:
        ops.scale_(some, coefficients)
    for got, right in zip(some if in_place else ops.scale(some, coefficients), want, strict=True):
        assert torch.equal(got, right)


def test_bounds_in_place_and_not(ops):
    some = leaves()
    want = [x.clamp(-0.5, 0.25) for x in some]
    pure = ops.clamp(some, -0.5, 0.25)
    ops.clamp_(some, -0.5, 0.25)
    for a, b, right in zip(pure, some, want, strict=True):
        assert torch.equal(a, right)
        assert torch.equal(b, right)


def test_the_decision_is_that_of_all_devices(ops):
    some = [torch.tensor([3.0]), torch.tensor([0.0]), torch.tensor(4.0), torch.tensor([0.0])]
    decision = ops.decide(some, Rule(1.0))
    assert (float(decision.norm), bool(decision.clipped)) == (5.0, True)
    assert float(decision.coefficient.number) == pytest.approx(0.2, rel=1e-15)


def test_operations_along_axes_are_those_of_the_leafs_device():
    x = normal(3, 4)
    one = SeveralDevices({x.device: (host_ops(), [0])})
    torch.testing.assert_close(one.partial_along(x, 2.0, (1,)).norm(), x.norm(dim=1, keepdim=True))
    c = Coefficient(torch.ones(3), torch.full((3,), 0.5), torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(one.scaled_sum(x, c), x.sum(dim=0) / 2)


def test_shared_memory_is_seen_over_devices(ops):
    base = torch.ones(8)
    assert ops.apart([base[:4], base[4:]])
    assert not ops.apart([base[:5], base[4:]])
