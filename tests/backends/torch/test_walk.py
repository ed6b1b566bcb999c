"""What holds parameters, what does not, and what each error says."""

import collections
import copy
import io
import itertools
import re

import numpy as np
import pytest
import torch
from torch.nn import Linear, Parameter

from gradclip.backends.torch import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    explain,
    get_total_norm,
    grad_norms,
)
from gradclip.backends.torch._leaves import gradients
from gradclip.backends.torch._walk import parameters_in, walk

CLIPS = {
    "clip_grad_norm_": lambda p: clip_grad_norm_(p, 0.1),
    "clip_grad_value_": lambda p: clip_grad_value_(p, 0.1),
    "clip_grads_with_norm_": lambda p: clip_grads_with_norm_(p, 0.1, 9.0),
    "grad_norms": grad_norms,
    "explain": explain,
}


def trained():
    model = torch.nn.Sequential(Linear(3, 4), torch.nn.BatchNorm1d(4), Linear(4, 2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.arange(15.0).reshape(5, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def saved(model):
    memory = io.BytesIO()
    torch.save(model.state_dict(), memory)
    memory.seek(0)
    return torch.load(memory)


STATES = {
    "state_dict": (lambda m, o: m.state_dict(), "parameters is a state_dict, which holds weights"),
    "copied": (lambda m, o: copy.deepcopy(m.state_dict()), "parameters is a state_dict"),
    "loaded": (lambda m, o: saved(m), "parameters is a state_dict"),
    "checkpoint": (lambda m, o: {"model": m.state_dict()}, "parameters['model'] is a state_dict"),
    "several": (lambda m, o: [m.state_dict()], "parameters[0] is a state_dict"),
    "named": (lambda m, o: [("net", m.state_dict())], "net is a state_dict"),
    "without weights": (lambda m, o: torch.nn.ReLU().state_dict(), "parameters is a state_dict"),
    "optimizer's state_dict": (lambda m, o: o.state_dict(), "parameters is the state_dict of an optimizer"),
    "optimizer's state": (lambda m, o: o.state, "parameters is the state of an optimizer"),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("function", CLIPS)
def test_states_are_no_gradients(function, state):
    model, optimizer = trained()
    make, message = STATES[state]
    before = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    remedy = r".* expected a tensor, a Module.*; pass the module or the optimizer itself"
    with pytest.raises(TypeError, match=re.escape(f"{function}(): {message}") + remedy):
        CLIPS[function](make(model, optimizer))
    for name, x in model.state_dict().items():
        assert torch.equal(x, before[0][name])
    torch.testing.assert_close(optimizer.state_dict()["state"], before[1]["state"], rtol=0, atol=0)


def test_a_state_dict_that_keeps_its_parameters_holds_parameters_and_buffers():
    model, _ = trained()
    want = float(get_total_norm(model))
    assert float(clip_grad_norm_(model.state_dict(keep_vars=True), 0.1)) == pytest.approx(want)
    assert float(get_total_norm(model)) == pytest.approx(0.1)
    assert float(get_total_norm(Linear(2, 2).state_dict())) > 0, "the norm of weights is a fair question"


class Own(Linear):
    def parameters(self, recurse=True):
        return super().parameters(recurse)


WRONG = {
    "None": (None, "parameters is None, expected a tensor", "pass model.parameters() or the model"),
    "method": (Own(2, 2).parameters, "parameters is the method parameters, expected", "call it: parameters()"),
    "named method": (Own(2, 2).named_parameters, "is the method named_parameters", "call it: named_parameters()"),
    "string": ("weights", "parameters is a str, expected", "pass model.parameters()"),
    "bytes": (b"weights", "parameters is a bytes, expected", "pass model.parameters()"),
    "number": (3, "parameters is an int, expected", "pass model.parameters()"),
    "class": (Linear, "parameters is a type, expected", "pass model.parameters()"),
    "names": (Linear(2, 2).state_dict().keys(), "parameters[0] is a str, expected", "pass model.parameters()"),
    "set": ({1.5}, "parameters[0] is a float, expected", "pass model.parameters()"),
    "NumPy": (np.ones(3), "parameters is a numpy.ndarray, expected", "to the functions of gradclip"),
    "NumPy number": (np.float64(3), "parameters is a numpy.float64, expected", "to the functions of gradclip"),
    "NumPy list": ([np.ones(3)], "parameters[0] is a numpy.ndarray, expected", "to the functions of gradclip"),
    "NumPy dict": ({"w": np.ones(3)}, "parameters['w'] is a numpy.ndarray", "to the functions of gradclip"),
    "NumPy named": ([("w", np.ones(3))], "w is a numpy.ndarray, expected", "to the functions of gradclip"),
    "mixed": ([Parameter(torch.ones(2)), np.ones(3)], "parameters[1] is a numpy.ndarray", "functions of gradclip"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("function", CLIPS)
def test_what_holds_no_parameters_is_named(function, wrong):
    source, message, remedy = WRONG[wrong]
    with pytest.raises(TypeError) as error:
        CLIPS[function](source)
    said = str(error.value)
    assert said.startswith(f"{function}(): ")
    assert message in said
    assert remedy in said.partition("; ")[2]


@pytest.mark.parametrize("library", ["jax", "cupy"])
def test_arrays_of_a_library_with_an_adapter(library):
    if library == "jax":
        array = pytest.importorskip("jax.numpy").ones(3)
    else:  # an array of CuPy's without a GPU
        array = type("ndarray", (), {"__module__": "cupy", "dtype": "float32"})()
    for call in (clip_grad_norm_, clip_grad_value_):
        with pytest.raises(
            TypeError, match=rf"parameters\[0\] is an? .*; .* the functions of gradclip.backends.{library}$"
        ):
            call([array], 1.0)


def test_a_total_norm_is_of_tensors():
    remedy = r"expected a tensor, .* of \(name, tensor\); pass \[p\.grad for p in model\.parameters\(\)\] or the model$"
    for wrong, what in ((None, "None"), (3, "an int")):
        with pytest.raises(TypeError, match=rf"^get_total_norm\(\): tensors is {what}, {remedy}"):
            get_total_norm(wrong)
    with pytest.raises(
        TypeError, match=r"^get_total_norm\(\): tensors\[0\] is a numpy\.ndarray, .* functions of gradc"
    ):
        get_total_norm([np.ones(3)])
    weights = [Parameter(torch.tensor([3.0])), Parameter(torch.tensor([4.0]))]
    assert get_total_norm(weights) == 5, "the tensors themselves, as in PyTorch"


def test_a_total_norm_of_modules_and_optimizers_is_that_of_the_gradients():
    model, optimizer = trained()
    want = float(get_total_norm([p.grad for p in model.parameters()]))
    for source in (model, [model], {"net": model}, model.named_children(), optimizer, [optimizer]):
        assert float(get_total_norm(source)) == pytest.approx(want)


def test_usual_containers_are_read_without_names_and_give_the_same():
    model = torch.nn.Sequential(Linear(2, 3), Linear(3, 2), Linear(2, 2, bias=False))
    model[2].weight = model[0].weight = Parameter(torch.ones(2, 2))  # tied
    optimizer = torch.optim.SGD(
        [
            {"params": list(model[0].parameters())},
            {"params": [model[1].bias], "clip": False},
            {"params": [model[1].weight]},
        ]
    )
    for i, p in enumerate(model.parameters()):
        p.grad = None if i == 1 else torch.ones_like(p)
    params = list(model.parameters())
    for source in (params, tuple(params), model, optimizer, list(model.named_parameters())):
        quick, found = parameters_in(source, "parameters"), walk(source, "parameters")
        assert list(map(id, quick)) == list(map(id, found.holders))
        leaves = gradients(source)
        assert [id(g) for g in leaves.arrays] == [id(g) for g in found.grads]
        assert leaves.paths() == found.paths


@pytest.mark.parametrize(
    "other",
    [[], {"w": Parameter(torch.ones(1))}, [torch.ones(1)], [(0, Parameter(torch.ones(1)))], [("w", 1)], [[]], None],
)
def test_other_containers_are_walked(other):
    assert parameters_in(other, "parameters") is None


def test_gradients_beside_parameters_in_a_dict():
    p = Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    with pytest.raises(
        TypeError, match=r"parameters\['g'\] is a tensor without \.grad .* beside parameters, expected a"
    ):
        clip_grad_norm_({"p": p, "g": torch.ones(2)}, 0.1)
    with pytest.raises(TypeError, match=r"parameters\['params'\]\[0\] is a tensor without .* expected parameters"):
        clip_grad_norm_({"params": [torch.ones(2)], "lr": 0.1}, 0.1)
    assert p.grad.tolist() == [1, 1]


def test_buffers_are_no_gradients():
    model, _ = trained()
    with pytest.raises(TypeError, match=r"parameters\[0\] is a tensor without .* looks like a gradient or a buffer"):
        clip_grad_norm_(model.buffers(), 0.1)


NESTED = {
    "modules": lambda m: [m[0], m[1], m[2]],
    "children": lambda m: m.named_children(),
    "dict of modules": lambda m: {"net": m},
    "lists": lambda m: [list(m[0].parameters()), [m[1].weight, m[1].bias], list(m[2].parameters())],
    "dict": lambda m: dict(m.named_parameters()),
    "OrderedDict": lambda m: collections.OrderedDict(m.named_parameters()),
    "filter": lambda m: filter(lambda p: p.requires_grad, m.parameters()),
    "chain": lambda m: itertools.chain(m[0].parameters(), m[1:].parameters()),
    "optimizers": lambda m: [torch.optim.SGD(m[0].parameters()), torch.optim.SGD(m[1:].parameters())],
    "ParameterList": lambda m: torch.nn.ParameterList(m.parameters()),
    "ParameterDict": lambda m: torch.nn.ParameterDict({n.replace(".", "_"): p for n, p in m.named_parameters()}),
    "DataParallel": torch.nn.DataParallel,
    "compiled": lambda m: torch.compile(m, backend="eager"),
    "by parameter": lambda m: {p: p.grad for p in m.parameters()},
    "nested gradients": lambda m: {"params": {n: p.grad for n, p in m.named_parameters()}},
}


@pytest.mark.parametrize("container", NESTED)
def test_containers_of_containers(container):
    model, _ = trained()
    want = float(get_total_norm(model))
    assert float(clip_grad_norm_(NESTED[container](model), 0.1)) == pytest.approx(want)
    assert float(get_total_norm(model)) == pytest.approx(0.1)


def test_an_iterator_that_was_read_already_is_reported():
    for used in (iter([]), filter(None, [])):
        with pytest.warns(UserWarning, match="`parameters` is an empty generator, no gradient clipping will occur"):
            assert clip_grad_norm_(used, 1.0) == 0


def test_no_two_parameters_have_one_name():
    first, second = Linear(2, 1), Linear(2, 1)
    for layer, size in ((first, 3.0), (second, 4.0)):
        for p in layer.parameters():
            p.grad = torch.full_like(p, size)
    assert list(grad_norms([first, second])) == [
        "parameters[0].weight", "parameters[0].bias", "parameters[1].weight", "parameters[1].bias",
    ]  # fmt: skip
    both = itertools.chain(first.named_parameters(), second.named_parameters())
    assert list(grad_norms(both)) == ["weight", "bias", "weight (2)", "bias (2)"]
    told = explain([first, second])
    assert told.norm == pytest.approx(float(get_total_norm([first, second])))
    tied = explain([first.weight, first.weight])
    assert tied.norm == pytest.approx(float(get_total_norm([first.weight.grad])))
    assert str(tied).endswith("1 of 1 parameter; norm 4.243")


@pytest.mark.parametrize("fullgraph", [False, True])
def test_compiled_calls_refuse_the_same(fullgraph):
    model, _ = trained()
    before = copy.deepcopy(model.state_dict())
    for wrong in (None, model.state_dict(), model.parameters):
        torch._dynamo.reset()
        call = torch.compile(lambda p: clip_grad_norm_(p, 0.1), backend="eager", fullgraph=fullgraph)
        with pytest.raises(torch._dynamo.exc.Unsupported if fullgraph else TypeError, match="parameters is"):
            call(wrong)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_a_compiled_call_takes_an_ordered_dict_of_gradients():
    grads = collections.OrderedDict(a=torch.tensor([3.0]), b=torch.tensor([4.0]))
    torch._dynamo.reset()
    norm = torch.compile(lambda g: clip_grad_norm_(g, 1.0), backend="eager")(grads)
    assert norm == 5
    torch.testing.assert_close(grads, collections.OrderedDict(a=torch.tensor([0.6]), b=torch.tensor([0.8])))
