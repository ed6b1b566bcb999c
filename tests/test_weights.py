"""PyTorch's parameters are weights: every function that clips refuses them, and no bit of them changes."""

import copy
import dataclasses
from collections import deque
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import gradclip  # noqa: E402  # after torch was found


@dataclasses.dataclass
class Checkpoint:
    """A container that holds a state_dict."""

    model: Any


CLIPPING = {
    "clip_by_global_norm": lambda g: gradclip.clip_by_global_norm(g, 0.1),
    "clip_by_global_norm_": lambda g: gradclip.clip_by_global_norm_(g, 0.1),
    "clip_by_norm": lambda g: gradclip.clip_by_norm(g, 0.1),
    "clip_by_norm_": lambda g: gradclip.clip_by_norm_(g, 0.1),
    "clip_by_rms": lambda g: gradclip.clip_by_rms(g, 0.1),
    "clip_by_rms_": lambda g: gradclip.clip_by_rms_(g, 0.1),
    "clip_by_value": lambda g: gradclip.clip_by_value(g, 0.1),
    "clip_by_value_": lambda g: gradclip.clip_by_value_(g, 0.1),
    "clip_per_example": lambda g: gradclip.clip_per_example(g, 0.1),
    "clip_with_norm": lambda g: gradclip.clip_with_norm(g, 0.1, 9.0),
    "clip_with_norm_": lambda g: gradclip.clip_with_norm_(g, 0.1, 9.0),
    "adaptive_grad_clip": lambda g: gradclip.adaptive_grad_clip(g, g),
    "adaptive_grad_clip_": lambda g: gradclip.adaptive_grad_clip_(g, g),
    "clip_spikes": lambda g: gradclip.clip_spikes(g, g),
    "clip_spikes_": lambda g: gradclip.clip_spikes_(g, g),
    "norm_partial": gradclip.norm_partial,
}


class OwnParameter(torch.nn.Parameter):
    pass


class OwnTensor(torch.Tensor):
    """A subclass of Tensor: a Parameter made of it keeps this type, as one made of a DTensor does."""


def weights():
    yield "Parameter", torch.nn.Parameter(torch.ones(4, 2))
    yield "frozen", torch.nn.Parameter(torch.ones(4, 2), requires_grad=False)
    yield "float64", torch.nn.Parameter(torch.ones(4, 2, dtype=torch.float64))
    yield "integer", torch.nn.Parameter(torch.ones(4, 2, dtype=torch.int8), requires_grad=False)
    yield "subclass of Parameter", OwnParameter(torch.ones(4, 2))
    yield "Parameter of a subclass of Tensor", torch.nn.Parameter(torch.ones(4, 2).as_subclass(OwnTensor))
    yield "uninitialized", torch.nn.LazyLinear(2).weight


def test_every_function_that_clips_is_tested_here():
    assert set(CLIPPING) == {n for n in gradclip.__all__ if "clip" in n or n == "norm_partial"}


@pytest.mark.parametrize(("kind", "weight"), list(weights()), ids=lambda x: x if isinstance(x, str) else "")
@pytest.mark.parametrize("name", CLIPPING)
def test_weights_are_refused_with_their_path_and_the_remedy(name, kind, weight):
    before = None if kind == "uninitialized" else weight.detach().clone()
    gradient = torch.ones(4, 2)
    message = r"grads\['layer'\]\[1\] is a torch\.nn\.Parameter, expected a gradient.*p\.grad for p.*backends\.torch"
    with torch.no_grad(), pytest.raises(TypeError, match=message):
        CLIPPING[name]({"layer": [gradient, weight]})
    with pytest.raises(TypeError, match=r"grads is a torch\.nn\.Parameter, expected a gradient"):
        CLIPPING[name](weight)
    assert before is None or torch.equal(weight.detach(), before)
    assert torch.equal(gradient, torch.ones(4, 2))


def test_one_weight_among_gradients_of_the_same_subclass():
    plain = [torch.ones(2).as_subclass(OwnTensor) for _ in range(3)]
    gradclip.clip_by_global_norm(plain, 0.1)
    with pytest.raises(TypeError, match=r"grads\[2\] is a torch\.nn\.Parameter"):
        gradclip.clip_by_global_norm([*plain[:2], torch.nn.Parameter(plain[2])], 0.1)


STATES = {
    "state_dict": (lambda m, o: m.state_dict(), "grads is a state_dict, which holds weights"),
    "checkpoint": (lambda m, o: [{"model": m.state_dict()}], r"grads\[0\]\['model'\] is a state_dict"),
    "optimizer's": (lambda m, o: {"state": {0: o.state_dict()["state"][0]}, "param_groups": []}, "of an optimizer"),
    "dataclass": (lambda m, o: Checkpoint(m.state_dict()), r"grads\.model is a state_dict"),
    "deque": (lambda m, o: deque([m.state_dict()]), r"grads\[0\] is a state_dict"),
    "keep_vars": (lambda m, o: m.state_dict(keep_vars=True), r"grads\['weight'\] is a torch\.nn\.Parameter"),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", CLIPPING)
def test_the_states_of_modules_and_optimizers_are_refused(name, state):
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    make, message = STATES[state]
    before = copy.deepcopy((layer.state_dict(), optimizer.state_dict()["state"]))
    with torch.no_grad(), pytest.raises(TypeError, match=rf"{message}.*, expected .*p\.grad for p.*backends\.torch"):
        CLIPPING[name](make(layer, optimizer))
    torch.testing.assert_close((layer.state_dict(), optimizer.state_dict()["state"]), before, rtol=0, atol=0)


def test_norms_of_weights_are_a_fair_question():
    layer = torch.nn.Linear(3, 2)
    named = dict(layer.named_parameters())
    whole = float(gradclip.global_norm(named).detach())
    assert whole == pytest.approx(float(torch.cat([p.detach().flatten() for p in layer.parameters()]).norm()))
    assert float(gradclip.global_norm(layer.state_dict())) == pytest.approx(whole)
    norms = gradclip.leaf_norms(named)
    assert float(norms["bias"].detach()) == pytest.approx(float(layer.bias.detach().norm()))
    grads = {name: torch.ones_like(p) for name, p in named.items()}
    assert gradclip.adaptive_grad_clip(grads, named).keys() == grads.keys()


def test_a_tensor_that_requires_grad_may_be_a_gradient():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    (grad,) = torch.autograd.grad((weight**3).sum(), weight, create_graph=True)
    assert grad.requires_grad
    clipped, _ = gradclip.clip_by_global_norm([grad], 1.0)
    assert clipped[0].requires_grad
    assert gradclip.norm_partial(torch.ones(4, requires_grad=True)).norm() == 2


def test_modules_and_optimizers_are_sent_to_the_adapter():
    layer = torch.nn.Linear(3, 2)
    for wrong in (layer, torch.optim.SGD(layer.parameters())):
        with pytest.raises(TypeError, match=r"grads is an? (Linear|SGD), expected an array.*gradclip\.backends\.torch"):
            gradclip.clip_by_global_norm_(wrong, 1.0)
    with pytest.raises(TypeError, match=r"grads is a generator.*pass list\(\.\.\.\) of it"):
        gradclip.clip_by_global_norm_(layer.parameters(), 1.0)
