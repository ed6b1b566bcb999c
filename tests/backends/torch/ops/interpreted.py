"""Tests of the Triton kernels in its interpreter, which has to be switched on before Triton is imported.

``test_triton.py`` runs it in a process of its own: ``TRITON_INTERPRET=1 pytest .../ops/interpreted.py``.
"""

import math
import os
from itertools import chain

import pytest

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

import torch

from gradclip._coefficient import coefficient
from gradclip._decision import Rule, unscaled_norm
from gradclip._global import clip_leaves_
from gradclip._tree import Leaves
from gradclip.backends.torch import (
    _leaves,
    attach,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
    grad_norms,
)
from gradclip.backends.torch.ops import _launch, _triton_table
from gradclip.backends.torch.ops._device import DEVICE
from gradclip.backends.torch.ops._triton import TritonOps
from gradclip.backends.torch.ops._triton_table import table_of
from tests.exact import clipped as exact_clipped
from tests.exact import norm as exact_norm
from tests.exact import relative_error, stands_for

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's own arithmetic
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ORDERS = [1.0, 2.0, math.inf]
OTHERS = [0.5, 1.5, 3.0, 4.0]
# The interpreter cuts off where it narrows to bfloat16, so that there it may be twice what it is on a GPU.
ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-7, torch.float32: 2.0**-23, torch.float64: 2.0**-51}


@pytest.fixture(params=[False, True], ids=["float64 sums", "float32 pairs"], autouse=True)
def pairs(request, monkeypatch):
    monkeypatch.setattr(_launch, "_pairs", lambda _, dtype: request.param and dtype != torch.float64)


def randn(n: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def tolerance(dtype: torch.dtype) -> float:
    return 1e-14 if dtype == torch.float64 else 1e-7


def partial(tensors: list[torch.Tensor], ord: float) -> torch.Tensor:
    whole = _launch.decide(table_of(tensors), Rule(None, ord))[1]
    return torch.stack([whole.scale, whole.total])


def partials(tensors: list[torch.Tensor], ord: float) -> torch.Tensor:
    return _launch.partials(table_of(tensors), ord)


def error(pair: torch.Tensor, exact, ord: float) -> float:
    got = stands_for(*pair.tolist(), ord)
    return 0.0 if got == exact else float(abs(got - exact) / exact)


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_norms(dtype, ord):
    tensors = [randn(n, dtype, seed=n) for n in (0, 1, 7, 900, 5001)] + [randn(900, dtype)[3:], randn(4096, dtype)]
    flat = [[float(v) for v in x] for x in tensors]
    assert error(partial(tensors, ord), exact_norm(chain.from_iterable(flat), ord), ord) <= tolerance(dtype)
    for pair, values in zip(partials(tensors, ord), flat, strict=True):
        assert error(pair, exact_norm(values, ord), ord) <= tolerance(dtype)


@pytest.mark.parametrize("ord", OTHERS)
@pytest.mark.parametrize("dtype", DTYPES[:3])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_norms_of_other_orders(dtype, ord, size):
    tensors = [randn(n, dtype, seed=n) * size for n in (1, 900, 5001)]
    flat = [[float(v) for v in x] for x in tensors]
    assert error(partial(tensors, ord), exact_norm(chain.from_iterable(flat), ord), ord) <= 1e-7
    for pair, values in zip(partials(tensors, ord), flat, strict=True):
        assert error(pair, exact_norm(values, ord), ord) <= 1e-7


# The interpreter takes subnormal bfloat16 for something else: GPUs widen them as they are.
SIZES = [
    (torch.float16, 6e4), (torch.float16, 1e-7), (torch.bfloat16, 3e38), (torch.bfloat16, 4e-38),
    (torch.float32, 1e38), (torch.float32, 1e-44), (torch.float32, 1e-22), (torch.float64, 1e300),
    (torch.float64, 1e-300), (torch.float64, 1e-160), (torch.float64, 1e154),
]  # fmt: skip


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize(("dtype", "size"), SIZES)
def test_any_magnitude(dtype, size, ord):
    x = (torch.tensor([1.0, -1.0, 0.5, 0.75, 0.0], dtype=torch.float64) * size).to(dtype)
    assert error(partial([x], ord), exact_norm(map(float, x), ord), ord) <= tolerance(dtype)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_inf_spread(dtype, ord, bad):
    x = randn(500, dtype)
    x[77] = bad
    total = partial([randn(5, dtype), x], ord)[1]
    assert not math.isfinite(total)
    assert math.isnan(total) == math.isnan(bad)


def test_zeros_have_no_say_in_the_scale():
    tiny = torch.tensor([3e-170, 4e-170], dtype=torch.float64)
    pair = partial([torch.zeros(100), torch.zeros(5, dtype=torch.float64), tiny], 2.0)
    assert error(pair, exact_norm(map(float, tiny)), 2.0) <= 1e-14
    assert partial([torch.zeros(3)], 2.0)[1] == 0
    assert partial([torch.zeros(0)], 2.0).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_scale(dtype):
    tensors = [randn(n, dtype, seed=n) for n in (0, 3, 5000)] + [randn(100, dtype)[3:]]
    before = [x.clone() for x in tensors]
    f64 = torch.float64
    one, half = torch.ones((), dtype=f64), torch.full((), 0.5, dtype=f64)
    _launch.scale_(table_of(tensors), one, half, torch.tensor(False))
    assert all(torch.equal(x, b) for x, b in zip(tensors, before, strict=True))
    _launch.scale_(table_of(tensors), one, half, torch.tensor(True), torch.tensor(False))
    assert all(torch.equal(x, b * 0.5) for x, b in zip(tensors, before, strict=True))
    each = torch.tensor([1.0, 2.0, 1.0, 4.0], dtype=f64)
    _launch.scale_(table_of(tensors), torch.ones(4, dtype=f64), each, each != 1)
    assert all(torch.equal(x, b * 0.5 * f) for x, b, f in zip(tensors, before, each.to(dtype), strict=True))
    tensors[1][0] = math.nan
    _launch.scale_(table_of(tensors), one, half, torch.tensor(True), torch.tensor(True))
    assert not any(x.any() for x in tensors)


@pytest.mark.parametrize("ord", [*ORDERS, 3.0])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("on_device", [False, True])
def test_the_coefficient_that_comes_with_the_norm(ord, zero, on_device):
    """It is the core's, for thresholds, loss scales and eps of any size, finite gradients and others."""
    for bad in (1.0, math.nan, math.inf):
        xs = [randn(n, torch.float32, seed=n) for n in (7, 900)]
        xs[0][3] = bad
        usual = [(1.0, 0.0, 1.0), (1e-7, 1e-6, 65536.0), (math.inf, 0.0, 1.0), (0.0, 0.0, 1.0), (1e9, 0.0, 2.0)]
        for numbers in [*usual, *([(-1.0, 0.0, 1.0), (1.0, -1e9, 1.0)] if on_device else [])]:
            given = [torch.tensor(x, dtype=torch.float64) if on_device else x for x in numbers]
            policy = "zero" if zero else "propagate"
            rule = Rule(None, ord, policy)
            rule.max_norm, rule.eps, rule.loss_scale = given  # negative ones, too: known ones are refused
            got, plain = _launch.decide(table_of(xs), rule)
            max_norm, eps, scale = (max(x, 0.0) for x in numbers)
            want = coefficient(plain, max_norm, eps=eps, loss_scale=scale, nonfinite=policy)
            torch.testing.assert_close(got.norm, unscaled_norm(plain, scale), equal_nan=True)
            assert got.norm.dtype == torch.float32
            assert bool(got.coefficient.changed) == bool(want.changed), numbers
            for part in ("divisor", "factor"):
                mine, other = getattr(got.coefficient, part), getattr(want, part)
                torch.testing.assert_close(mine, other, rtol=1e-15, atol=0, equal_nan=True)
            assert (got.coefficient.zeroed is None) == (want.zeroed is None)
            assert want.zeroed is None or bool(got.coefficient.zeroed) == bool(want.zeroed)


@pytest.mark.parametrize("dtype", DTYPES)
def test_by_value(dtype):
    for low, high in ((-0.5, 0.25), (-math.inf, 0.0), (-1e300, 1e300), (0.1, math.inf)):
        tensors = [randn(n, dtype, seed=n) for n in (0, 3, 5000)] + [randn(100, dtype)[3:]]
        tensors[1][:] = torch.tensor([math.nan, math.inf, -math.inf])
        before = [x.clone() for x in tensors]
        _launch.clamp_(table_of(tensors), low, high)
        most = torch.finfo(dtype).max
        bounds = [bound if math.isinf(bound) else max(-most, min(most, bound)) for bound in (low, high)]
        for x, b in zip(tensors, before, strict=True):
            torch.testing.assert_close(x, b.clamp(*bounds), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("dtype", "size", "max_norm"),
    [(torch.float32, 1e38, 1e-7), (torch.float64, 1e308, 1e-7), (torch.bfloat16, 1.0, 0.1), (torch.float16, 6e4, 1e-3),
     (torch.float32, 1.0, 0.0), (torch.float64, 1e-300, 1e-305)],
)  # fmt: skip
def test_the_algorithm_over_these_operations(dtype, size, max_norm):
    xs = [(torch.tensor([1.0, -0.5, 0.25, 0.0, 0.75], dtype=torch.float64) * size).to(dtype) for _ in range(3)]
    exact = exact_clipped([float(v) for x in xs for v in x], max_norm)
    ops = TritonOps()
    norm = clip_leaves_(Leaves(xs, ops, range(3), list, list), Rule(max_norm)).norm
    assert norm.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    least = torch.finfo(dtype).smallest_normal
    for got, e in zip((float(v) for x in xs for v in x), exact, strict=True):
        assert abs(got - float(e)) <= ROUNDING[dtype] * max(abs(float(e)), least)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e9, math.inf])
def test_clipping_tensors(dtype, max_norm, monkeypatch):
    """Autograd learns that the gradients were written to."""
    monkeypatch.setattr(_leaves, "plain_host_ops", lambda arrays: None)
    monkeypatch.setattr(_leaves, "ops_of", lambda arrays: TritonOps())
    grads = [randn(n, dtype, seed=n) for n in (7, 5000, 1)]
    kept, versions = [g.clone() for g in grads], [g._version for g in grads]
    norm = clip_grad_norm_(dict(enumerate(grads)), max_norm)
    exact = exact_norm([float(v) for x in kept for v in x])
    assert relative_error(float(norm), exact) <= tolerance(dtype)
    assert norm.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    want = [g.double() * min(1.0, max_norm / float(norm)) for g in kept]
    for got, w, k in zip(grads, want, kept, strict=True):
        torch.testing.assert_close(got.double(), w, rtol=2 * ROUNDING[dtype], atol=torch.finfo(dtype).tiny)
        assert max_norm < 100 or torch.equal(got, k)
    assert all(g._version > v for g, v in zip(grads, versions, strict=True))


def test_tensors_that_may_overlap_are_looked_at_more_closely():
    whole = torch.ones(8)
    assert TritonOps().apart([whole, torch.ones(3)])
    for unusual in ([whole, whole[2:]], [torch.ones(4, 2).T], [whole, whole]):
        assert not TritonOps().apart(unusual)


def test_the_adapter_over_these_operations(monkeypatch):
    """What a GPU is asked for, asked of the interpreter: the public functions, and clipping in the optimizer."""
    monkeypatch.setattr(_leaves, "plain_host_ops", lambda arrays: None)
    monkeypatch.setattr(_leaves, "ops_of", lambda arrays: TritonOps())

    def clipped(clip, *, slow):
        parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (3, 500, 70)]
        for i, p in enumerate(parameters):
            p.grad = randn(p.numel(), torch.float32, seed=i)
        with monkeypatch.context() as plain:
            if slow:
                plain.setattr(_leaves, "ops_of", lambda arrays: DEVICE)
            norm = clip(parameters)
        return [p.grad for p in parameters], norm

    def attached(parameters):
        optimizer = torch.optim.SGD(parameters, lr=0.0)
        clipping = attach(optimizer, max_norm=0.5, max_value=1.0)
        optimizer.step()
        return clipping.norm

    for clip in (
        lambda p: clip_grad_norm_(iter(p), 0.5, 3.0, nonfinite="zero"),
        lambda p: clip_grad_norm_({str(i): x for i, x in enumerate(p)}, torch.tensor(0.5), scale=16.0, eps=1e-6),
        lambda p: clip_grad_value_(p, 0.25),
        lambda p: clip_grads_with_norm_(p, 0.5, get_total_norm([x.grad for x in p])),
        lambda p: sum(grad_norms(p).values()),
        attached,
    ):
        (got, norm), (want, other) = clipped(clip, slow=False), clipped(clip, slow=True)
        torch.testing.assert_close(got, want, rtol=2e-7, atol=0)
        torch.testing.assert_close(norm, other, rtol=2e-7, atol=0)


def test_tables_are_kept_while_tensors_stay():
    _triton_table._tables.clear()
    x = [torch.ones(3), torch.ones(4)]
    for _ in range(3):
        partial(x, 2.0)
    assert len(_triton_table._tables) == 1
    assert relative_error(float(partial(x, 1.0)[1]), exact_norm([7.0])) == 0
    assert len(_triton_table._tables) == 1


def test_what_the_kernels_cannot_do_is_left_to_others():
    assert not _launch.suits([torch.ones(4, 4)[:, ::2]])
    assert not _launch.suits([torch.ones(2, dtype=torch.complex64)])
    assert not _launch.has_order(table_of([torch.ones(2)]), 5.0)
    assert not _launch.has_order(table_of([torch.ones(2, dtype=torch.float64)]), 3.0)
    assert _launch.suits([torch.ones(4, 3).T, torch.ones(2, 3, 4).permute(2, 0, 1)])
    x = torch.arange(8.0).reshape(2, 4)[:, ::2]
    ops = TritonOps()
    assert relative_error(float(ops.partial([x], 2.0).norm()), exact_norm([0.0, 2.0, 4.0, 6.0])) < 1e-7
