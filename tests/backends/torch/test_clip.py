"""The drop-in functions: PyTorch's signatures and behaviour where PyTorch is right, and every container."""

import inspect
import math
import warnings

import pytest
import torch
from torch.nn import Parameter

import gradclip
from gradclip.backends import torch as ours
from gradclip.backends.torch import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from tests import exact
from tests.backends.torch.helpers import grads, normal, param, values

theirs = torch.nn.utils
SHAPES = [(), (1,), (3, 5), (17_000,), (0, 4), (2, 3, 4), (40, 500)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.complex128]
EPS = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float64: 2.0**-52, torch.complex128: 2.0**-51}


def model_of(dtype=torch.float32, scale=1.0, shapes=SHAPES):
    return [param(normal(*shape, seed=i, dtype=dtype) * scale) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("name", ["clip_grad_norm_", "clip_grad_value_", "get_total_norm", "clip_grads_with_norm_"])
def test_signatures_are_pytorchs_and_what_is_more_is_keyword_only(name):
    mine = inspect.signature(getattr(ours, name)).parameters
    other = inspect.signature(getattr(torch.nn.utils.clip_grad, name, None) or getattr(theirs, name)).parameters
    assert list(other) == list(mine)[: len(other)]
    assert [p.default for p in other.values()] == [mine[name].default for name in other]
    assert all(p.kind is p.KEYWORD_ONLY for p in list(mine.values())[len(other) :])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ord", [2.0, 1, math.inf, 3, 0.5, "inf"])
@pytest.mark.parametrize("max_norm", [0.25, 1e9])
def test_norm_and_gradients_against_exact_arithmetic(dtype, ord, max_norm):
    params = model_of(dtype, shapes=SHAPES[:3] + SHAPES[4:6])
    before = values(*grads(params))
    norm = clip_grad_norm_(params, max_norm, ord)
    wide = dtype in (torch.float64, torch.complex128)
    assert norm.dtype == (torch.float64 if wide else torch.float32)
    assert norm.ndim == 0
    assert not norm.requires_grad
    right = exact.norm(before, float(ord))
    assert exact.relative_error(float(norm), right) <= (1e-14 if wide else 1e-6)
    factor = complex(min(1, max_norm / right))
    tiny = 2.0**-24 if dtype == torch.float16 else 0.0
    for got, was in zip(values(*grads(params)), before, strict=True):
        assert abs(complex(got) - complex(was) * factor) <= abs(complex(was) * factor) * EPS.get(dtype, 4e-7) * 2 + tiny


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ord", [2.0, 1.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.25, 7.0, 1e9])
def test_the_last_digits_are_all_that_differs_from_pytorch(dtype, ord, max_norm):
    mine, other = model_of(dtype, shapes=[*SHAPES[:4], *SHAPES[5:]]), model_of(dtype, shapes=[*SHAPES[:4], *SHAPES[5:]])
    norm = clip_grad_norm_(mine, max_norm, ord, eps=1e-6)
    torch.testing.assert_close(norm, theirs.clip_grad_norm_(other, max_norm, ord), rtol=5e-6, atol=0)
    for a, b in zip(grads(mine), grads(other), strict=True):
        torch.testing.assert_close(a, b, rtol=6e-6, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_not_clipped_means_not_written(dtype):
    params = model_of(dtype)
    versions = [g._version for g in grads(params)]
    bits = [g.clone() for g in grads(params)]
    clip_grad_norm_(params, 1e9)
    assert [g._version for g in grads(params)] == versions
    assert all(torch.equal(g, b) for g, b in zip(grads(params), bits, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", [SHAPES, [(64,)] * 100, [(300, 1000), (7,)]], ids=["various", "many", "large"])
def test_autograd_notices_what_was_written(dtype, shapes):
    """Who kept a gradient for a second derivative gets an error, not a wrong number."""
    params = model_of(dtype, shapes=shapes)
    versions = [g._version for g in grads(params)]
    clip_grad_norm_(params, 0.25)
    assert all(g._version > version for g, version in zip(grads(params), versions, strict=True) if g.numel())
    assert not any(g.is_inference() for g in grads(params)), "they may take part in autograd later on"


def test_mixed_dtypes_share_one_coefficient():
    params = [p for dtype in DTYPES for p in model_of(dtype, shapes=[(3, 5), (300,)])]
    before = values(*grads(params))
    norm = clip_grad_norm_(params, 1.0)
    assert norm.dtype == torch.float64
    assert exact.relative_error(float(norm), exact.norm(before)) < 1e-14
    assert float(exact.norm(values(*grads(params)))) == pytest.approx(1.0, rel=1e-2)


def test_constants_in_any_number_are_added_exactly():
    for size in (5_000, 70_000, (1 << 17) + 77, 1 << 20):
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            grad = torch.full((size,), 0.1, dtype=dtype)
            right = float(grad[0]) * exact.mpmath.sqrt(size)
            assert exact.relative_error(float(get_total_norm(grad)), right) < (
                1e-14 if dtype == torch.float64 else 1e-7
            )


def test_many_small_and_some_large():
    params = [param(normal(n % 700 + 1, seed=n)) for n in range(1500)] + [param(normal(200_000))]
    before = torch.cat([g.double().reshape(-1) for g in grads(params)])
    right = math.sqrt(math.fsum((before * before).tolist()))
    assert float(clip_grad_norm_(iter(params), 1.0)) == pytest.approx(right, rel=1e-7)
    after = torch.cat([g.double().reshape(-1) for g in grads(params)])
    torch.testing.assert_close(after, before / right, rtol=3e-7, atol=0)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)
        self.unused = torch.nn.Linear(2, 2)

    def loss(self):
        return self.second(self.first(torch.ones(5, 3)).relu()).square().sum()


def net():
    model = Net()
    model.loss().backward()
    return model


CONTAINERS = {
    "list": lambda m: list(m.parameters()),
    "tuple": lambda m: tuple(m.parameters()),
    "generator": lambda m: m.parameters(),
    "iterator": lambda m: iter(list(m.parameters())),
    "module": lambda m: m,
    "optimizer": lambda m: torch.optim.SGD(m.parameters()),
    "named": lambda m: m.named_parameters(),
    "groups": lambda m: torch.optim.SGD(m.parameters()).param_groups,
    "group": lambda m: torch.optim.SGD(m.parameters()).param_groups[0],
    "dict of parameters": lambda m: dict(m.named_parameters()),
    "dict of gradients": lambda m: {n: p.grad for n, p in m.named_parameters() if p.grad is not None},
    "modules": lambda m: [m.first, m.second],
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_holds_the_same_gradients(container):
    model, other = net(), net()
    make = CONTAINERS[container]
    norm = clip_grad_norm_(make(model), 0.5)
    torch.testing.assert_close(norm, theirs.clip_grad_norm_(other.parameters(), 0.5), rtol=1e-6, atol=0)
    for a, b in zip(grads(model.parameters()), grads(other.parameters()), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-9)
    clip_grads_with_norm_(make(model), 0.25, 0.5)
    assert float(get_total_norm(grads(model.parameters()))) == pytest.approx(0.25, rel=1e-6)
    clip_grad_value_(make(model), 1e-3)
    assert max(g.abs().max() for g in grads(model.parameters())) == pytest.approx(1e-3)
    assert float(get_total_norm(grads(model.parameters()))) == pytest.approx(float(get_total_norm(model)))


def test_a_single_tensor():
    p = param(torch.tensor([3.0, 4.0]))
    assert clip_grad_norm_(p, 1.0) == 5
    assert get_total_norm(torch.tensor([3.0, 4.0])) == 5


@pytest.mark.parametrize("nothing", [[], [Parameter(torch.ones(2))], torch.nn.Identity(), {}])
def test_nothing_to_clip(nothing):
    norm = clip_grad_norm_(nothing, 1.0)
    assert (float(norm), norm.dtype, norm.device.type) == (0, torch.float32, "cpu")
    clip_grad_value_(nothing, 1.0)
    clip_grads_with_norm_(nothing, 1.0, 2.0)


def test_an_empty_generator_is_reported():
    params = (p for p in [])
    with pytest.warns(UserWarning, match="`parameters` is an empty generator, no gradient clipping will occur"):
        assert clip_grad_norm_(params, 1.0) == 0


@pytest.mark.parametrize(
    "gradients",
    [
        [torch.ones(2)],
        torch.ones(2),
        (g for g in [torch.ones(2), torch.ones(3)]),
        [("w", torch.ones(2))],
        [torch.ones(2, requires_grad=True) * 2],
    ],
)
@pytest.mark.parametrize("clip", [clip_grad_norm_, clip_grad_value_, lambda p, m: clip_grads_with_norm_(p, m, 2.0)])
def test_gradients_in_the_place_of_parameters(gradients, clip):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if inspect.isgenerator(gradients):
            gradients = [torch.ones(2), torch.ones(3)]
        with pytest.raises(
            TypeError, match=r"is a tensor without \.grad .* expected parameters.*looks like a gradient"
        ):
            clip(gradients, 1.0)


def test_a_frozen_parameter_and_a_buffer_are_no_gradients():
    frozen = Parameter(torch.ones(2), requires_grad=False)
    p = param(torch.tensor([3.0, 4.0]))
    assert clip_grad_norm_([frozen, p, torch.ones(3)], 1.0) == 5
    assert clip_grad_norm_([frozen], 1.0) == 0


@pytest.mark.parametrize("wrong", [3.0, "weights", [1.0], list("ab"), object()])
def test_wrong_containers_are_named(wrong):
    with pytest.raises(TypeError, match=r"parameters.* expected a tensor, a Module, an Optimizer"):
        clip_grad_norm_(wrong, 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("container", ["list", "module"])
def test_error_if_nonfinite_names_the_gradient_and_writes_nothing(bad, container):
    model = net()
    model.second.weight.grad[1, 2] = bad
    before = [g.clone() for g in grads(model.parameters())]
    name = r"second\.weight\.grad" if container == "module" else r"parameters\[2\]\.grad"
    with pytest.raises(RuntimeError, match=rf"{name} is NaN or inf .*1 of 4.* nothing was written"):
        clip_grad_norm_(CONTAINERS[container](model), 1.0, error_if_nonfinite=True)
    for a, b in zip(grads(model.parameters()), before, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(RuntimeError, match="is NaN or inf"):
        get_total_norm(before, error_if_nonfinite=True)


def test_nonfinite_policies():
    for bad in (math.nan, math.inf):
        p = param(torch.tensor([1.0, bad]))
        assert not math.isfinite(clip_grad_norm_(p, 1.0))
        assert p.grad[1].isnan()
        p = param(torch.tensor([1.0, bad]))
        assert not math.isfinite(clip_grad_norm_(p, 1.0, nonfinite="zero"))
        assert p.grad.tolist() == [0, 0]
    with pytest.raises(ValueError, match="nonfinite='skip', expected one of"):
        clip_grad_norm_(p, 1.0, nonfinite="skip")


def test_max_norm_as_tensor_none_and_zero():
    p = param(torch.tensor([3.0, 4.0]))
    assert clip_grad_norm_(p, None) == 5
    assert clip_grad_norm_(p, torch.tensor(2.5)) == 5
    torch.testing.assert_close(p.grad, torch.tensor([1.5, 2.0]))
    clip_grad_norm_(p, 0)
    assert p.grad.tolist() == [0, 0]
    assert clip_grad_norm_(p, 1.0) == 0
    with pytest.raises(TypeError, match="max_norm='1' is a str"):
        clip_grad_norm_(p, "1")


@pytest.mark.parametrize("foreach", [None, True, False])
def test_foreach_is_accepted(foreach):
    p = param(torch.tensor([3.0, 4.0]))
    assert clip_grad_norm_(p, 1.0, foreach=foreach) == get_total_norm([torch.tensor([3.0, 4.0])], foreach=foreach)
    clip_grads_with_norm_(p, 1.0, torch.tensor(2.0), foreach)
    clip_grad_value_(p, 0.1, foreach)
    assert p.grad.max() == pytest.approx(0.1)


def test_overlapping_gradients_are_refused_before_anything_is_written():
    memory = torch.ones(10)
    params = [param(memory[:6]), param(memory[4:])]
    with pytest.raises(ValueError, match=r"parameters\[0\]\.grad and parameters\[1\]\.grad overlap in memory"):
        clip_grad_norm_(params, 1.0)
    sliding = param(memory.as_strided((4, 3), (2, 1)))
    with pytest.raises(ValueError, match=r"parameters\.grad overlaps itself"):
        clip_grad_norm_(sliding, 1.0)
    assert memory.tolist() == [1.0] * 10
    halves = [param(memory[:5]), param(memory[5:])]
    assert float(clip_grad_norm_(halves, 1.0)) == pytest.approx(math.sqrt(10))


def test_gradients_that_are_part_of_a_graph():
    p = Parameter(torch.tensor([1.0, 2.0]))
    (grad,) = torch.autograd.grad((p**3).sum(), p, create_graph=True)
    assert grad.requires_grad
    right = math.hypot(3, 12)
    assert float(get_total_norm(grad)) == pytest.approx(right, rel=1e-7)
    assert float(clip_grad_norm_({"p": grad}, 1.0)) == pytest.approx(right, rel=1e-7)
    torch.testing.assert_close(grad.detach(), torch.tensor([3.0, 12.0]) / right)


def test_the_norm_of_parts_is_merged_elsewhere():
    params = [param(torch.tensor([3.0])), param(torch.tensor([4.0]))]
    whole = gradclip.norm_partial(params[0].grad).merge(gradclip.norm_partial(params[1].grad))
    clip_grads_with_norm_(params, 1.0, whole)
    torch.testing.assert_close([p.grad.item() for p in params], [0.6, 0.8])
    clip_grads_with_norm_(params, 1.0, torch.tensor(0.5))
    torch.testing.assert_close([p.grad.item() for p in params], [0.6, 0.8])


def test_integers_are_no_gradients():
    with pytest.raises(TypeError, match=r"tensors\[1\] has dtype torch.int64, expected real or complex"):
        get_total_norm([torch.ones(2), torch.ones(2, dtype=torch.int64)])
    assert get_total_norm([None, torch.tensor([3.0, 4.0])]) == 5


def test_the_same_input_gives_the_same_bits():
    params = model_of(shapes=[(1000, 300), (77,), (123_456,)])
    norms = {float(get_total_norm(grads(params))) for _ in range(5)}
    assert len(norms) == 1


@pytest.mark.parametrize("default", [torch.float64, "meta"])
@pytest.mark.parametrize(
    ("count", "size", "dtype"),
    [(1, 10, torch.float32), (1000, 8, torch.float32), (2, 1 << 18, torch.float32), (1, 9 << 20, torch.float32),
     (1, 1 << 18, torch.bfloat16), (2, 10, torch.float64)],
)  # fmt: skip
def test_defaults_for_new_tensors_change_nothing(count, size, dtype, default):
    """Gradients in the host's memory are clipped there, whatever device and dtype a new tensor would have."""
    before = [normal(size, seed=i).to(dtype) for i in range(count)]
    mine, usual = ([param(x.clone()) for x in before] for _ in range(2))
    want = clip_grad_norm_(usual, 1.0)
    dtype_before = torch.get_default_dtype()
    if isinstance(default, str):
        torch.set_default_device(default)
    else:
        torch.set_default_dtype(default)
    try:
        norm = clip_grad_norm_(mine, 1.0)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(dtype_before)
    assert norm.device.type == "cpu"
    assert norm == want
    for x, y in zip(mine, usual, strict=True):
        assert torch.equal(x.grad, y.grad)
