"""Norms by name, and the table of who made up the norm."""

import math

import pytest
import torch

from gradclip.backends.torch import clip_grad_norm_, explain, grad_norms
from tests import exact
from tests.backends.torch.helpers import normal, param, values


def net():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    model(normal(5, 4)).square().sum().backward()
    return model


@pytest.mark.parametrize("ord", [2.0, 1.0, math.inf])
def test_norms_by_name_are_those_of_each_gradient(ord):
    model = net()
    norms = grad_norms(model, ord)
    assert list(norms) == [name for name, _ in model.named_parameters()]
    for name, p in model.named_parameters():
        assert norms[name].dtype == torch.float32
        assert exact.relative_error(float(norms[name]), exact.norm(values(p.grad), ord)) < 1e-6


def test_names_of_other_containers_and_dtypes():
    params = [param(torch.tensor([3.0, 4.0])), param(torch.full((4,), 3e200, dtype=torch.float64))]
    norms = grad_norms(params)
    assert list(norms) == ["parameters[0]", "parameters[1]"]
    assert [n.dtype for n in norms.values()] == [torch.float32, torch.float64]
    assert float(norms["parameters[1]"]) == pytest.approx(6e200)
    assert grad_norms([]) == {}


def test_the_table_is_sorted_and_its_shares_make_up_the_whole():
    found = explain(net(), top=2)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.share(name) for name in found) == pytest.approx(1)
    assert found.norm == pytest.approx(float(clip_grad_norm_(net(), None)))
    lines = str(found).splitlines()
    assert len(lines) == 4
    assert lines[-1].startswith("2 of 4 parameters; norm ")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_guilty_one_stands_first(bad):
    model = net()
    model[2].bias.grad[0] = bad
    found = explain(model)
    assert next(iter(found)) == "2.bias"
    assert found.share("2.bias") == 1
    assert "100.0%" in str(found).splitlines()[1]


def test_zeros_and_nothing():
    assert explain([param(torch.zeros(3))]).share("parameters[0]") == 0
    assert str(explain([])).endswith("0 of 0 parameters; norm 0")
