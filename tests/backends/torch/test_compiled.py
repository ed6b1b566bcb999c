"""Under torch.compile without a graph break, and under the transforms of torch.func, the results are the same."""

import pytest
import torch
from torch.func import grad, vmap

from gradclip.backends import torch as ours
from gradclip.backends.torch import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from tests.backends.torch.helpers import grads, normal, param

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


def model_of(dtype=torch.float32):
    return [param(normal(*shape, seed=i, dtype=dtype)) for i, shape in enumerate([(3, 4), (5,), (), (0, 2)])]


@pytest.fixture(params=["eager", "inductor"])
def backend(request):
    torch._dynamo.reset()
    return request.param


@pytest.mark.parametrize("container", [list, lambda params: {f"w{i}": p for i, p in enumerate(params)}])
def test_a_step_compiles_in_one_graph(backend, container):
    def step(params, max_norm):
        norm = clip_grad_norm_(container(params), max_norm)
        with torch.no_grad():
            for p in params:
                p.sub_(p.grad, alpha=0.1)
        return norm

    mine, other = model_of(), model_of()
    compiled = torch.compile(step, fullgraph=True, backend=backend)
    for limit in (1.0, 1e9):
        assert compiled(mine, limit) == step(other, limit)
        for p, q in zip(mine, other, strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=0)
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_a_whole_training_step_compiles_in_one_graph():
    torch._dynamo.reset()
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 3)

    def step(weights, x):
        def loss(w):
            return torch.func.functional_call(net, w, (x,)).square().sum()

        gradients = grad(loss)(weights)
        norm = clip_grad_norm_(gradients, 0.5)
        return {name: w - 0.1 * gradients[name] for name, w in weights.items()}, norm

    weights = {name: w.detach().clone() for name, w in net.named_parameters()}
    x = normal(8, 4)
    want, norm = step(weights, x)
    got, compiled_norm = torch.compile(step, fullgraph=True, backend="eager")(weights, x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(compiled_norm, norm)


def test_by_value_compiles_in_one_graph(backend):
    mine, other = model_of(), model_of()
    torch.compile(lambda p, bound: clip_grad_value_(p, bound), fullgraph=True, backend=backend)(mine, 0.3)
    clip_grad_value_(other, 0.3)
    assert all(torch.equal(a, b) for a, b in zip(grads(mine), grads(other), strict=True))


def test_the_two_halves_compile_in_one_graph(backend):
    def step(params, most):
        norm = get_total_norm([p.grad for p in params])
        clip_grads_with_norm_(params, most, norm)
        return norm

    mine, other = model_of(), model_of()
    compiled = torch.compile(step, fullgraph=True, backend=backend)
    for limit in (0.3, 1e9):
        assert compiled(mine, limit) == step(other, limit)
        assert all(torch.equal(a, b) for a, b in zip(grads(mine), grads(other), strict=True))


def test_errors_are_raised_from_the_compiled_step():
    torch._dynamo.reset()
    compiled = torch.compile(lambda p, m: clip_grad_norm_(p, m, error_if_nonfinite=True), backend="eager")
    bad = [param(torch.tensor([1.0, torch.nan]))]
    with pytest.raises((FloatingPointError, RuntimeError), match="is NaN or inf"):
        compiled(bad, 1.0)
    assert bad[0].grad[0] == 1


def loss(w):
    return ((w["a"] * torch.arange(3.0)) ** 2).sum() + w["b"].sum()


def test_gradients_of_torch_func():
    gradients = grad(loss)({"a": torch.ones(3), "b": torch.ones(2)})
    assert float(clip_grad_norm_(gradients, 1.0)) == pytest.approx(70**0.5)
    torch.testing.assert_close(gradients["a"], torch.tensor([0.0, 2.0, 8.0]) / 70**0.5)


def test_each_example_by_its_own_norm_under_vmap():
    def clipped(w):
        gradients = grad(loss)(w)
        norm = clip_grad_norm_(gradients, 5.0)
        return gradients, norm

    batch = {"a": torch.tensor([[1.0, 1, 1], [0.1, 0.1, 0.1]]), "b": torch.zeros(2, 2)}
    together, norms = vmap(clipped)(batch)
    for i in range(2):
        one = grad(loss)({name: w[i] for name, w in batch.items()})
        torch.testing.assert_close(norms[i], clip_grad_norm_(one, 5.0))
        torch.testing.assert_close({name: g[i] for name, g in together.items()}, one)


def test_large_examples_by_their_own_norm_under_vmap():
    batch = normal(2, 100_000)
    torch.testing.assert_close(vmap(lambda x: get_total_norm([x]))(batch), batch.norm(dim=1))


PURE = {
    "clip_by_norm": lambda g: ours.clip_by_norm(g, 0.5),
    "clip_by_rms": lambda g: ours.clip_by_rms(g, 0.5),
    "clip_by_value": lambda g: ours.clip_by_value(g, 0.5),
    "clip_by_global_norm": lambda g: ours.clip_by_global_norm(g, 0.5)[0],
    "clip_with_norm": lambda g: ours.clip_with_norm(g, 0.5, 2.0),
    "adaptive_grad_clip": lambda g: ours.adaptive_grad_clip(g, {k: 2 * v for k, v in g.items()}, 0.05),
    "leaf_norms": lambda g: ours.leaf_norms(g),
    "global_norm": lambda g: ours.global_norm(g),
    "norm_partial": lambda g: ours.norm_partial(g).norm(),
}
IN_PLACE = {
    "clip_by_norm_": lambda params: ours.clip_by_norm_(params, 0.5),
    "clip_by_rms_": lambda params: ours.clip_by_rms_(params, 0.5),
    "clip_by_value_": lambda params: ours.clip_by_value_(params, 0.5),
    "clip_by_global_norm_": lambda params: ours.clip_by_global_norm_(params, 0.5),
    "clip_with_norm_": lambda params: ours.clip_with_norm_(params, 0.5, 2.0),
    "adaptive_grad_clip_": lambda params: ours.adaptive_grad_clip_(params, 0.05),
}


def gradients_of(*batch):
    return {f"w{i}": normal(*batch, *shape, seed=i) for i, shape in enumerate([(3, 4), (5,), ()])}


@pytest.mark.parametrize("name", PURE)
def test_pure_functions_run_between_two_graphs(name):
    torch._dynamo.reset()
    gradients = gradients_of()
    got = torch.compile(lambda g: PURE[name]({k: 3 * v for k, v in g.items()}), backend="eager")(gradients)
    torch.testing.assert_close(got, PURE[name]({k: 3 * v for k, v in gradients.items()}), rtol=0, atol=0)


@pytest.mark.parametrize("name", IN_PLACE)
def test_functions_in_place_run_between_two_graphs(name):
    torch._dynamo.reset()
    mine, other = model_of(), model_of()
    torch.compile(IN_PLACE[name], backend="eager")(mine)
    IN_PLACE[name](other)
    assert all(torch.equal(a, b) for a, b in zip(grads(mine), grads(other), strict=True))


@pytest.mark.parametrize("name", [*PURE, *IN_PLACE])
def test_in_one_graph_they_say_what_to_do(name):
    torch._dynamo.reset()
    mine, function = model_of(), {**PURE, **IN_PLACE}[name]
    before = [g.clone() for g in grads(mine)]
    with pytest.raises(Exception, match=rf"{name}\(\) is no operation of a graph.*call it outside of what is compiled"):
        torch.compile(function, fullgraph=True, backend="eager")(gradients_of() if name in PURE else mine)
    assert all(torch.equal(a, b) for a, b in zip(grads(mine), before, strict=True))


@pytest.mark.parametrize("name", PURE)
def test_each_example_of_a_batch_under_vmap(name):
    batch = gradients_of(4)
    got = vmap(PURE[name])(batch)
    each = [PURE[name]({k: v[i] for k, v in batch.items()}) for i in range(4)]
    for i, one in enumerate(each):
        mine = {k: v[i] for k, v in got.items()} if isinstance(got, dict) else got[i]
        torch.testing.assert_close(mine, one, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["clip_by_norm", "clip_by_global_norm", "adaptive_grad_clip"])
def test_large_examples_of_a_batch_under_vmap(name):
    batch = {"w": normal(2, 300, 700)}
    got = vmap(PURE[name])(batch)["w"]
    for i in range(2):
        torch.testing.assert_close(got[i], PURE[name]({"w": batch["w"][i]})["w"], rtol=1e-6, atol=1e-7)


def sum_of(found):
    return sum(x.double().square().sum() for x in found.values()) if isinstance(found, dict) else found.double()


@pytest.mark.parametrize("name", PURE)
def test_pure_functions_can_be_differentiated(name):
    """By autograd and by torch.func, the derivative is that of differences."""
    x = {k: v.double() for k, v in gradients_of().items()}
    y = {k: v.clone().requires_grad_() for k, v in x.items()}
    sum_of(PURE[name](y)).backward()
    of_func = grad(lambda g: sum_of(PURE[name](g)))(x)
    for k, v in x.items():
        torch.testing.assert_close(y[k].grad, of_func[k], rtol=1e-10, atol=1e-12)
        step = 1e-6 * normal(*v.shape, seed=7, dtype=torch.float64)
        two = [float(sum_of(PURE[name]({**x, k: v + sign * step}))) for sign in (1, -1)]
        assert (two[0] - two[1]) / 2 == pytest.approx(float((step * y[k].grad).sum()), rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("name", IN_PLACE)
def test_gradients_that_are_recorded_are_clipped_in_place_without_a_record(name):
    p = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
    (p**3).sum().backward(create_graph=True)
    assert p.grad.requires_grad
    before, record, alone = p.grad.detach().clone(), p.grad.grad_fn, param(p.grad.detach().clone())
    with torch.no_grad():
        alone.copy_(p)
    IN_PLACE[name]([p])
    IN_PLACE[name]([alone])
    assert torch.equal(p.grad, alone.grad)
    assert not torch.equal(p.grad, before)
    assert p.grad.grad_fn is record
