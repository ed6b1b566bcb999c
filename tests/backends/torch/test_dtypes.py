"""Gradients of dtypes that PyTorch stores but hardly calculates in, through every public function."""

import math

import numpy as np
import pytest
import torch

import gradclip
from gradclip.backends.torch import (
    attach,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    clip_in_backward,
    explain,
    get_total_norm,
    grad_norms,
)
from tests.backends.torch.helpers import param

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

FLOAT8 = [torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz]
DTYPES = [*FLOAT8, torch.complex32]
EPS = {torch.float8_e4m3fn: 2.0**-3, torch.float8_e4m3fnuz: 2.0**-3, torch.complex32: 2.0**-10}
TINY = {torch.float8_e4m3fn: 2.0**-9, torch.float8_e4m3fnuz: 2.0**-10, torch.complex32: 2.0**-24}


class Plain(torch.optim.Optimizer):
    """Steps that PyTorch can do with any dtype; its own optimizers have none for float8."""

    def step(self):
        pass


def by_attach(x):
    attach(optimizer := Plain([param(x)], {}), 1.0)
    optimizer.step()


def in_backward(by):
    """Clip what a real backward pass leaves: its gradients have the parameters' dtype."""

    def clip(x):
        model = torch.nn.Module()
        model.weight = torch.nn.Parameter(torch.zeros_like(x))
        clip_in_backward(model, 0.25, by=by)
        (wide(model.weight) * wide(x).conj()).sum().real.backward()
        x.copy_(model.weight.grad)

    return clip


PURE = {
    "clip_by_global_norm": lambda x: gradclip.clip_by_global_norm([x], 1.0)[0][0],
    "in order 3": lambda x: gradclip.clip_by_global_norm([x], 1.0, ord=3.0)[0][0],
    "in order inf": lambda x: gradclip.clip_by_global_norm([x], 1.0, ord=math.inf)[0][0],
    "with a loss scale": lambda x: gradclip.clip_by_global_norm([x], None, scale=3.0)[0][0],
    "clip_by_norm": lambda x: gradclip.clip_by_norm([x], 1.0)[0],
    "clip_by_rms": lambda x: gradclip.clip_by_rms([x], 0.25)[0],
    "clip_with_norm": lambda x: gradclip.clip_with_norm([x], 1.0, 3.0)[0],
    "adaptive_grad_clip": lambda x: gradclip.adaptive_grad_clip([x], [x], 0.1)[0],
    "clip_by_value": lambda x: gradclip.clip_by_value([x], 0.5)[0],
}
IN_PLACE = {
    "clip_by_global_norm_": lambda x: gradclip.clip_by_global_norm_([x], 1.0),
    "clip_by_norm_": lambda x: gradclip.clip_by_norm_([x], 1.0),
    "clip_by_rms_": lambda x: gradclip.clip_by_rms_([x], 0.25),
    "clip_with_norm_": lambda x: gradclip.clip_with_norm_([x], 1.0, 3.0),
    "adaptive_grad_clip_": lambda x: gradclip.adaptive_grad_clip_([x], [x.clone()], 0.1),
    "clip_by_value_": lambda x: gradclip.clip_by_value_([x], 0.5),
    "clip_grad_norm_": lambda x: clip_grad_norm_([param(x)], 1.0),
    "in order 3": lambda x: clip_grad_norm_([param(x)], 1.0, 3.0),
    "in order inf": lambda x: clip_grad_norm_([param(x)], 1.0, math.inf),
    "with a loss scale": lambda x: clip_grad_norm_([param(x)], 1.0, scale=3.0),
    "clip_grads_with_norm_": lambda x: clip_grads_with_norm_([param(x)], 1.0, torch.tensor(3.0)),
    "clip_grad_value_": lambda x: clip_grad_value_([param(x)], 0.5),
    "attach": by_attach,
    "clip_in_backward by norm": in_backward("norm"),
    "clip_in_backward by rms": in_backward("rms"),
    "clip_in_backward by value": in_backward("value"),
}


def wide(x):
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def made(dtype, n=24):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((n, 3)) + (1j * rng.standard_normal((n, 3)) if dtype.is_complex else 0)
    return torch.from_numpy(values).to(dtype)


def assert_rounded_once(got, want, dtype):
    error = (torch.view_as_real(wide(got) - want) if dtype.is_complex else wide(got) - want).abs()
    size = (torch.view_as_real(want) if dtype.is_complex else want).abs()
    assert bool((error <= size * (EPS.get(dtype, 0.25) / 2 + 1e-6) + TINY.get(dtype, 2.0**-16) / 2).all())
    assert float(error.max()) > 0, "nothing was rounded: too weak a test"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PURE)
def test_pure(dtype, name):
    x = made(dtype)
    before, want = x.clone(), None
    if dtype.is_complex and "value" in name:
        with pytest.raises(TypeError, match="expected real"):
            PURE[name](x)
        return
    want, got = PURE[name](wide(x)), PURE[name](x)
    assert (got.dtype, got.shape) == (dtype, x.shape)
    assert torch.equal(wide(x), wide(before))
    if "value" in name:
        assert torch.equal(wide(got), want)
    else:
        assert_rounded_once(got, want, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(dtype, name):
    x = made(dtype)
    want, address = wide(x), x.data_ptr()
    if dtype.is_complex and "value" in name:
        with pytest.raises(TypeError, match="expected real"):
            IN_PLACE[name](x)
        return
    IN_PLACE[name](want)
    IN_PLACE[name](x)
    assert (x.dtype, x.data_ptr()) == (dtype, address)
    if "value" in name:
        assert torch.equal(wide(x), wide(want.to(dtype)))
    else:
        assert_rounded_once(x, want, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 24, 50_000])
@pytest.mark.parametrize("ord", [2.0, 1.0, 3.0, 0.5, math.inf])
def test_norms(dtype, n, ord):
    """Alone and beside others, which PyTorch would not lay end to end with float8."""
    x, others = made(dtype, n), [torch.ones(2), torch.ones(3, dtype=torch.float16), torch.ones(2, dtype=torch.float64)]
    want = float(torch.linalg.vector_norm(wide(x).abs(), ord))
    both = float(torch.linalg.vector_norm(torch.cat([wide(x).abs().reshape(-1), torch.ones(7)]), ord))
    for norm in (get_total_norm, lambda grads, p: gradclip.global_norm(grads, ord=p)):
        assert norm([x], ord).dtype == torch.float32
        assert float(norm([x], ord)) == pytest.approx(want, rel=1e-6)
        assert float(norm([x, *others], ord)) == pytest.approx(both, rel=1e-6)
    model = torch.nn.Module()
    model.weight, model.bias = param(x), param(others[0])
    assert float(grad_norms(model, ord)["weight"]) == pytest.approx(want, rel=1e-6)
    if ord == 2:
        assert explain(model)["weight"] == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_beside_others_all_are_clipped_by_one_coefficient(dtype):
    for others in ([], [torch.float32], [torch.float16, torch.float64], [torch.float8_e5m2, torch.bfloat16]):
        grads = [made(d, n) for d in [dtype, *others] for n in (1, 24, 6000)]
        before = [wide(g).clone() for g in grads]
        whole = math.sqrt(sum(float((g.abs() ** 2).sum()) for g in before))
        assert float(clip_grad_norm_([param(g) for g in grads], whole / 2)) == pytest.approx(whole, rel=1e-6)
        for g, was in zip(grads, before, strict=True):
            torch.testing.assert_close(wide(g), wide((was / 2).to(g.dtype)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_clipped_is_not_written(dtype):
    x = made(dtype)
    version = x._version
    clip_grad_norm_([param(x)], 1e4)
    assert x._version == version


@pytest.mark.parametrize("dtype", DTYPES)
def test_nonfinite_gradients(dtype):
    for policy, right in (("propagate", math.nan), ("zero", 0.0)):
        x, other = made(dtype), torch.ones(3)
        x[1, 1] = math.nan
        clip_grad_norm_([param(x), param(other)], 1.0, nonfinite=policy)
        for g in (x, other):
            torch.testing.assert_close(wide(g).abs(), torch.full(g.shape, right).double(), equal_nan=True)
    before = made(dtype)
    x = before.clone()
    x[1, 1] = math.nan
    with pytest.raises(RuntimeError, match="NaN or inf"):
        clip_grad_norm_([param(other := torch.full((2,), 9.0)), param(x)], 1.0, error_if_nonfinite=True)
    assert (other == 9).all()


def test_under_compile():
    """The norm and the clipping are one operation of the graph there."""
    x, plain = made(torch.float8_e5m2), made(torch.float8_e5m2)
    params = [param(x)]
    norm = torch.compile(lambda: clip_grad_norm_(params, 1.0), backend="eager")()
    assert norm == clip_grad_norm_([param(plain)], 1.0)
    assert torch.equal(wide(x), wide(plain))


@pytest.mark.parametrize("dtype", DTYPES)
def test_per_example(dtype):
    x = made(dtype)
    summed, clipped = gradclip.clip_per_example([x], 0.5)
    factors = (0.5 / torch.linalg.vector_norm(wide(x), dim=1, keepdim=True)).clamp(max=1.0)
    assert int(clipped) == int((factors < 1).sum())
    torch.testing.assert_close(wide(summed[0]), wide((wide(x) * factors).sum(0).to(dtype)), rtol=1e-6, atol=0)
