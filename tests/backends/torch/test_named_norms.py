"""`NamedNorms`: the norms that `grad_norms` returns, as one tensor; and when a handle asks for them."""

import math

import pytest
import torch
from torch import nn

from gradclip.backends.torch import attach, grad_norms
from gradclip.backends.torch._named_norms import NamedNorms


def model_with_gradients() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2))
    model(torch.randn(5, 3)).square().sum().backward()
    return model


def test_they_are_those_of_grad_norms():
    model = model_with_gradients()
    model[1].bias.grad = None
    names, norms = NamedNorms(model)()
    wanted = grad_norms(model)
    assert names == tuple(wanted)
    assert norms.tolist() == pytest.approx([float(norm) for norm in wanted.values()], rel=1e-6)


def test_norms_of_large_and_small_gradients_are_in_range():
    params = [nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(3)]
    for p, value in zip(params, (3e200, 3e-200, 3.0), strict=True):
        p.grad = torch.tensor([value, value / 3 * 4], dtype=torch.float64)
    names, norms = NamedNorms(zip("abc", params, strict=True))()
    assert names == ("a", "b", "c")
    assert norms.tolist() == pytest.approx([5e200, 5e-200, 5.0], rel=1e-14)


def test_a_gradient_that_two_parameters_share_has_both_names():
    model = model_with_gradients()
    model[2].bias.grad = model[1].bias.grad
    names, norms = NamedNorms(list(model.named_parameters()))()
    found = dict(zip(names, norms, strict=True))
    assert list(found) == [name for name, _ in model.named_parameters()]
    assert found["1.bias"] == found["2.bias"]


def test_observers_are_called_before_clipping_with_the_loss_scale():
    model = model_with_gradients()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = attach(optimizer, 0.5)
    measure = handle.named_norms(model)
    seen = []

    class Observer:
        def before_clipping(self, source, scale):
            seen.append((source, scale, math.hypot(*measure()[1].tolist())))

        def __call__(self, source):
            seen.append(float(source.norm))

    handle.observers.append(Observer())
    optimizer.step()
    (source, scale, before), after = seen
    assert source is handle
    assert scale == 1
    assert before == pytest.approx(after, rel=1e-6)
    assert math.hypot(*measure()[1].tolist()) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_observers_are_called_in_compiled_steps():
    model = model_with_gradients()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = attach(optimizer, 0.5)
    seen = []
    handle.observers.append(lambda source: seen.append(float(source.norm)))
    norm = math.hypot(*map(float, grad_norms(model).values()))
    torch.compiler.reset()
    torch.compile(lambda: optimizer.step(), backend="eager")()
    assert seen == pytest.approx([norm], rel=1e-6)


def test_what_holds_no_parameters_is_refused():
    with pytest.raises(TypeError, match="expected a tensor, a Module"):
        NamedNorms(3)


def test_names_are_those_of_a_dict():
    model = model_with_gradients()
    names, norms = NamedNorms(dict(model.named_parameters()))()
    assert names == tuple(name for name, _ in model.named_parameters())
    assert len(norms) == len(names)
