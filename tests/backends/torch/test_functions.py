"""The core's names on PyTorch: pure on containers of tensors, in place on whatever holds parameters."""

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

import gradclip
from gradclip.backends import torch as ours
from tests import exact
from tests.backends.torch.helpers import normal, param, values

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.complex128]
EPS = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float64: 2.0**-51, torch.complex128: 2.0**-50}
IN_PLACE = {
    "clip_by_norm_": lambda grads: ours.clip_by_norm_(grads, 0.5),
    "clip_by_rms_": lambda grads: ours.clip_by_rms_(grads, 0.25),
    "clip_by_value_": lambda grads: ours.clip_by_value_(grads, 0.5, min_value=-0.25),
    "clip_by_global_norm_": lambda grads: ours.clip_by_global_norm_(grads, 0.5),
    "clip_with_norm_": lambda grads: ours.clip_with_norm_(grads, 0.5, 5.0),
}
PURE = {
    "clip_by_norm_": lambda grads: ours.clip_by_norm(grads, 0.5),
    "clip_by_rms_": lambda grads: ours.clip_by_rms(grads, 0.25),
    "clip_by_value_": lambda grads: ours.clip_by_value(grads, 0.5, min_value=-0.25),
    "clip_by_global_norm_": lambda grads: ours.clip_by_global_norm(grads, 0.5)[0],
    "clip_with_norm_": lambda grads: ours.clip_with_norm(grads, 0.5, 5.0),
}


def model():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 2))
    for i, p in enumerate(made.parameters()):
        p.grad = normal(*p.shape, seed=i) * 10.0 ** (i % 3 - 1)
    return made


def gradients_of(made):
    return {name: p.grad for name, p in made.named_parameters()}


def assert_right(got, before, name):
    """Compare with exact arithmetic what became of a leaf by itself."""
    was = values(before)
    eps = EPS.get(before.dtype, 4e-7) * 2
    if name == "clip_by_value_":
        want = [min(max(v, -0.25), 0.5) for v in was]
    else:
        most = {"clip_by_norm_": 0.5, "clip_by_rms_": 0.25 * math.sqrt(max(1, len(was)))}[name]
        size = exact.norm(was)
        want = [complex(v) * complex(min(1, most / size) if size else 1) for v in was]
    tiny = 2.0**-24 if before.dtype == torch.float16 else 0.0
    for g, w in zip(values(got), want, strict=True):
        assert abs(complex(g) - complex(w)) <= abs(complex(w)) * eps + tiny


EACH = [(name, dtype) for name in ("clip_by_norm_", "clip_by_rms_") for dtype in DTYPES]
EACH += [("clip_by_value_", dtype) for dtype in DTYPES if not dtype.is_complex]  # complex numbers have no order


@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_each_leaf_against_exact_arithmetic(name, dtype):
    shapes = [(), (3, 5), (1700,), (0, 4), (2, 3, 4)]
    before = {f"p{i}": normal(*shape, seed=i, dtype=dtype) * 10.0 ** (i - 2) for i, shape in enumerate(shapes)}
    before["transposed"] = normal(4, 6, seed=9, dtype=dtype).T
    kept = {key: x.clone() for key, x in before.items()}
    got = PURE[name](before)
    assert list(got) == list(before)
    for key, x in got.items():
        assert (x.dtype, x.shape) == (kept[key].dtype, kept[key].shape)
        assert torch.equal(before[key], kept[key]), "the input is not written to"
        assert_right(x, kept[key], name)
    IN_PLACE[name](before)
    for key, x in before.items():
        assert torch.equal(x, got[key]), "in place gives the same bits"


CONTAINERS = {
    "module": lambda m: m,
    "optimizer": lambda m: torch.optim.SGD(m.parameters()),
    "list": lambda m: list(m.parameters()),
    "generator": lambda m: m.parameters(),
    "named": lambda m: m.named_parameters(),
    "groups": lambda m: [{"params": list(m[0].parameters())}, {"params": list(m[1:].parameters()), "lr": 1.0}],
    "dict of parameters": lambda m: dict(m.named_parameters()),
    "dict of gradients": gradients_of,
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_takes_whatever_holds_parameters(name, container):
    made, other = model(), model()
    want = PURE[name](gradients_of(other))
    given = {key: p.grad for key, p in made.named_parameters()}
    result = IN_PLACE[name](CONTAINERS[container](made))
    if name == "clip_by_global_norm_":
        assert exact.relative_error(float(result), exact.norm(values(*gradients_of(other).values()))) < 1e-6
    else:
        assert result is None
    for key, p in made.named_parameters():
        assert p.grad is given[key]
        torch.testing.assert_close(p.grad, want[key], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["clip_by_norm_", "clip_by_rms_"])
def test_what_needs_no_clipping_is_not_written(name):
    made = model()
    before = [(p.grad.clone(), p.grad._version) for p in made.parameters()]
    getattr(ours, name)(made, 1e9)
    for p, (was, version) in zip(made.parameters(), before, strict=True):
        assert torch.equal(p.grad, was)
        assert p.grad._version == version


class Pair(NamedTuple):
    first: torch.Tensor
    second: object


@dataclass
class Layer:
    weight: torch.Tensor
    bias: object


def test_a_pure_function_returns_the_container_that_it_got():
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([0.3])
    got = ours.clip_by_norm({"x": Pair(a, [b, None]), "y": (Layer(a, b), a)}, 1.0)
    assert isinstance(got["x"], Pair)
    assert got["x"].second[1] is None
    assert isinstance(got["y"][0], Layer)
    assert got["y"][0].bias.item() == b.item()
    for x in (got["x"].first, got["y"][0].weight, got["y"][1]):
        torch.testing.assert_close(x, torch.tensor([0.6, 0.8]))
    assert ours.clip_by_norm([], 1.0) == []
    assert isinstance(ours.clip_by_norm(a, 1.0), torch.Tensor)


def test_gradients_of_autograd():
    made = model()
    loss = made(normal(2, 3, 4, 4)).square().sum()
    grads = torch.autograd.grad(loss, list(made.parameters()))
    clipped, norm = ours.clip_by_global_norm(grads, 0.5)
    assert isinstance(clipped, tuple)
    assert exact.relative_error(float(norm), exact.norm(values(*grads))) < 1e-6
    assert float(ours.global_norm(clipped)) == pytest.approx(0.5, rel=1e-6)


def test_each_example_by_the_norm_of_its_gradients():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    weights = {name: p.detach() for name, p in net.named_parameters()}
    x, y = normal(6, 4) * 3, normal(6, 1, seed=1)

    def loss(w, x, y):
        return (functional_call(net, w, (x,)) - y).square().sum()

    per_example = vmap(grad(loss), in_dims=(None, 0, 0))(weights, x, y)
    norms = [exact.norm(values(*(g[i] for g in per_example.values()))) for i in range(6)]
    limit = float(sorted(norms)[2]) * 1.1
    summed, clipped = ours.clip_per_example(per_example, limit)
    assert (clipped.dtype, clipped.shape, int(clipped)) == (torch.int32, (), 3)
    assert {name: g.shape for name, g in summed.items()} == {name: w.shape for name, w in weights.items()}
    for name, g in per_example.items():
        factors = torch.tensor([float(min(1, limit / n)) for n in norms], dtype=torch.float64)
        want = (g.double() * factors.reshape(-1, *[1] * (g.dim() - 1))).sum(0)
        torch.testing.assert_close(summed[name].double(), want, rtol=2e-6, atol=1e-7)


def test_no_examples():
    summed, clipped = ours.clip_per_example([], 1.0)
    assert summed == []
    assert (clipped.dtype, clipped.shape, int(clipped)) == (torch.int32, (), 0)


@pytest.mark.parametrize("ord", [1.0, 2.0, 3.0, math.inf])
def test_norms_of_gradients_by_the_names_of_parameters(ord):
    made = model()
    right = {name: exact.norm(values(g), ord) for name, g in gradients_of(made).items()}
    optimizer = torch.optim.SGD(made.parameters())
    for found in (ours.leaf_norms(made, ord=ord), ours.leaf_norms(gradients_of(made), ord=ord)):
        assert list(found) == list(right)
        for name, norm in found.items():
            assert exact.relative_error(float(norm), right[name]) < 1e-6
    assert list(ours.leaf_norms(optimizer, ord=ord)) == list(ours.grad_norms(optimizer, ord))
    whole = exact.norm(values(*gradients_of(made).values()), ord)
    for source in (made, optimizer, gradients_of(made)):
        assert exact.relative_error(float(ours.global_norm(source, ord=ord)), whole) < 1e-6
        assert exact.relative_error(float(ours.norm_partial(source, ord=ord).norm()), whole) < 1e-6
    assert ours.leaf_norms(nn.Linear(2, 2)) == {}
    assert float(ours.global_norm(nn.Linear(2, 2))) == 0


def test_the_norm_of_weights_is_that_of_the_weights():
    made = nn.Linear(2, 1)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[3.0, 4.0]])), made.bias.fill_(12.0)
    assert ours.global_norm(list(made.parameters())).item() == 13
    assert {name: float(x) for name, x in ours.leaf_norms(made.state_dict()).items()} == {"weight": 5, "bias": 12}


def test_parts_merge_and_are_clipped_by_the_norm_of_the_whole():
    here, there = normal(100), normal(50, seed=1) * 3
    whole = ours.norm_partial(here).merge(ours.norm_partial([there]))
    assert exact.relative_error(float(whole.norm()), exact.norm(values(here, there))) < 1e-7
    together = ours.clip_by_global_norm([here, there], 1.0)[0]
    torch.testing.assert_close(ours.clip_with_norm(here, 1.0, whole), together[0], rtol=2e-7, atol=0)
    p = param(there.clone())
    ours.clip_with_norm_([p], 1.0, whole)
    torch.testing.assert_close(p.grad, together[1], rtol=2e-7, atol=0)


def test_a_gradient_that_two_parameters_share_is_clipped_once():
    shared = torch.tensor([3.0, 4.0])
    ours.clip_by_norm_([param(shared), param(shared)], 1.0)
    torch.testing.assert_close(shared, torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize("coalesced", [True, False])
@pytest.mark.parametrize("name", ["clip_by_norm_", "clip_by_rms_"])
def test_sparse_gradients_are_clipped_where_they_lie(name, coalesced):
    index = torch.tensor([[1, 3, 1]])
    g = torch.sparse_coo_tensor(
        index, torch.tensor([[1.0, 2.0], [4.0, 0.0], [2.0, -2.0]]), (5, 2), check_invariants=True
    )
    p = param(g.coalesce() if coalesced else g)
    before = p.grad.to_dense()
    IN_PLACE[name]([p])
    assert p.grad.layout is torch.sparse_coo
    assert_right(p.grad.to_dense(), before, name)


@pytest.mark.parametrize("coalesced", [True, False])
def test_norms_of_sparse_gradients(coalesced):
    g = torch.sparse_coo_tensor([[1, 3, 1]], torch.tensor([1.0, 4.0, 2.0]), (5,), check_invariants=True)
    g = g.coalesce() if coalesced else g
    found = ours.leaf_norms({"w": g, "b": torch.tensor([12.0])})
    assert {name: float(norm) for name, norm in found.items()} == {"w": 5, "b": 12}
    assert float(ours.global_norm([g, torch.tensor([12.0])])) == 13
    assert float(ours.norm_partial(g).norm()) == 5


@pytest.mark.parametrize("name", IN_PLACE)
def test_an_expanded_gradient_is_written_once(name):
    base = torch.tensor([3.0, -4.0])
    p = param(base.expand(3, 2))
    want = PURE[name]([base.expand(3, 2).clone()])[0]
    IN_PLACE[name]([p])
    assert torch.equal(p.grad, want)


def test_adaptive_clipping_of_tensors_is_that_of_the_model():
    made = model()
    params = {name: p.detach() for name, p in made.named_parameters()}
    before = {name: g.clone() for name, g in gradients_of(made).items()}
    pure = ours.adaptive_grad_clip(gradients_of(made), params, 0.1)
    with_parameters = ours.adaptive_grad_clip(gradients_of(made), dict(made.named_parameters()), 0.1)
    assert all(torch.equal(g, before[name]) for name, g in gradients_of(made).items())
    ours.adaptive_grad_clip_(made, 0.1)
    for name, g in gradients_of(made).items():
        assert torch.equal(pure[name], g)
        assert torch.equal(with_parameters[name], g)
        assert not with_parameters[name].requires_grad
        assert not torch.equal(before[name], g)
    rows = ours.adaptive_grad_clip(torch.tensor([[3.0, 0.0], [4.0, 0.0]]), torch.ones(2, 2), 0.5, axis=0)
    torch.testing.assert_close(rows, torch.tensor([[3.0, 0.0], [4.0, 0.0]]) * math.sqrt(0.5) / 5)


def test_adaptive_clipping_skips_parameters_without_a_gradient():
    grads, params = {"a": torch.tensor([3.0, 4.0]), "b": None}, {"a": torch.tensor([0.0, 5.0]), "b": torch.ones(3)}
    assert ours.adaptive_grad_clip(grads, params, 0.5)["a"].tolist() == [1.5, 2.0]


WEIGHTS = {
    "a module": (model, "is a torch.nn.modules.container.Sequential, expected a tensor or a container of tensors"),
    "an optimizer": (lambda: torch.optim.SGD(model().parameters()), r"is a torch\.optim\.sgd\.SGD"),
    "parameters": (lambda: list(model().parameters()), r"grads\[0\] is a torch\.nn\.Parameter, .* it holds weights"),
    "a state_dict": (lambda: model().state_dict(), "grads is a state_dict"),
}


@pytest.mark.parametrize("what", WEIGHTS)
@pytest.mark.parametrize("name", PURE)
def test_pure_functions_refuse_weights(name, what):
    make, said = WEIGHTS[what]
    with pytest.raises(TypeError, match=said) as error:
        PURE[name](make())
    assert "a function whose name ends with _" in str(error.value)


def test_a_partial_of_weights_is_refused():
    with pytest.raises(TypeError, match=r"grads\[0\] is a torch\.nn\.Parameter"):
        ours.norm_partial(list(model().parameters()))


REFUSED = {
    "a generator": (lambda: (x for x in [torch.ones(2)]), TypeError, r"is a generator, .*pass list\(\.\.\.\) of it"),
    "an array": (
        lambda: {"w": np.ones(2)},
        TypeError,
        r"grads\['w'\] is a numpy\.ndarray, expected a tensor; pass PyT",
    ),
    "a number": (lambda: [1.0], TypeError, r"grads\[0\] is a float, expected an array"),
    "integers": (lambda: [torch.ones(2, dtype=torch.int32)], TypeError, r"grads\[0\] has dtype torch\.int32"),
    "a sparse one": (lambda: [torch.ones(2).to_sparse()], TypeError, r"layout torch\.sparse_coo, expected a dense ten"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("name", PURE)
def test_what_pure_functions_refuse(name, what):
    make, error, said = REFUSED[what]
    with pytest.raises(error, match=said):
        PURE[name](make())


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_what_would_silently_not_be_clipped_is_refused(name):
    g = torch.tensor([3.0, 4.0])
    for bad, said in (
        ([g], rf"{name}\(\): grads\[0\] is a tensor without \.grad .* pass gradients as a dict"),
        (None, rf"{name}\(\): grads is None, expected a tensor, a Module"),
        (model().state_dict(), rf"{name}\(\): grads is a state_dict"),
        (model().parameters, rf"{name}\(\): grads is the method parameters, .* call it: parameters\(\)"),
    ):
        with pytest.raises(TypeError, match=said):
            IN_PLACE[name](bad)
    assert g.tolist() == [3, 4]


@pytest.mark.parametrize("name", IN_PLACE)
def test_gradients_that_overlap_are_refused_before_any_is_written(name):
    base = torch.tensor([3.0, 4.0, 5.0])
    with pytest.raises(ValueError, match=r"overlap in memory, .* use gradclip\.backends\.torch\.clip_\w+\(\)$"):
        IN_PLACE[name]({"a": torch.full((2,), 7.0), "b": base[:2], "c": base[1:]})
    assert base.tolist() == [3, 4, 5]


@pytest.mark.parametrize("name", IN_PLACE)
def test_an_empty_generator_is_told_of_in_the_callers_line(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        IN_PLACE[name](p for p in [])
    assert [(w.filename, w.category) for w in caught] == [(__file__, UserWarning)]


def test_wrong_calls_are_explained():
    with pytest.raises(TypeError, match=r"too many positional arguments; .*; write clip_by_value\(grads, min_value="):
        ours.clip_by_value(torch.ones(2), -1, 1)
    with pytest.raises(TypeError, match=r"missing a required argument: 'max_norm'; .*gradclip\.backends\.optax\.clip"):
        ours.clip_by_global_norm(1.0)
    with pytest.raises(ValueError, match="max_norm=-1"):
        ours.clip_by_norm_(model(), -1)


def test_a_type_error_from_within_names_no_function_of_the_core():
    with pytest.raises(gradclip.NonFiniteError, match=r"grads\['w'\] is NaN or inf"):
        ours.clip_by_global_norm({"w": torch.tensor([math.nan])}, 1.0, nonfinite="error")
