"""Any gradients, of every kind that autograd and users make, one or many together: hypothesis chooses among them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradclip.backends.torch import attach, clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from tests.backends.torch.helpers import normal, param

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}
EPS |= {torch.float8_e4m3fn: 2.0**-3, torch.float8_e4m3fnuz: 2.0**-3}
EPS |= {torch.float8_e5m2: 2.0**-2, torch.float8_e5m2fnuz: 2.0**-2}
EPS |= {torch.complex32: EPS[torch.float16], torch.complex64: EPS[torch.float32], torch.complex128: EPS[torch.float64]}
TINY = {torch.float32: 2.0**-149, torch.bfloat16: 2.0**-133, torch.float16: 2.0**-24}
TINY |= {torch.float8_e4m3fn: 2.0**-9, torch.float8_e4m3fnuz: 2.0**-10}
TINY |= {torch.float8_e5m2: 2.0**-16, torch.float8_e5m2fnuz: 2.0**-17}
TINY |= {torch.complex32: 2.0**-24, torch.complex64: 2.0**-149}
LARGEST = dict.fromkeys(EPS, 25) | {torch.float16: 3, torch.complex32: 3}
LARGEST |= {dtype: 0 for dtype in EPS if "float8" in str(dtype)}
WIDE = {torch.float64, torch.complex128}


def _coo(numbers):
    return torch.sparse_coo_tensor(torch.tensor([[0, 2, 2], [1, 0, 0]]), numbers(3), (5, 4), check_invariants=True)


KINDS = {
    "vector": lambda numbers: numbers(64),
    "matrix": lambda numbers: numbers(30, 40),
    "0-d": lambda numbers: numbers(),
    "empty": lambda numbers: numbers(0, 3),
    "medium": lambda numbers: numbers(33_000),
    "large": lambda numbers: numbers(131_100),
    "transposed": lambda numbers: numbers(7, 5).T,
    "strided": lambda numbers: numbers(20, 10)[::2, 1::3],
    "channels last": lambda numbers: numbers(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "expanded": lambda numbers: numbers(3, 1).expand(3, 4),
    "conjugated": lambda numbers: numbers(6).conj(),
    "negated": lambda numbers: torch._neg_view(numbers(6)),
    "coo": lambda numbers: _coo(numbers).coalesce(),
    "coo, not coalesced": _coo,
}
SPARSE = {"coo", "coo, not coalesced"}
COUNTS = {kind: 1 if kind in ("medium", "large") else 120 for kind in KINDS}
"""So many leaves of a kind at most: beyond some, they are laid end to end, or taken by a call for many."""


def makes(kind, dtype):
    """Whether PyTorch can make such a gradient, and read it: it does not add up all dtypes, nor negate float8."""
    float8 = "float8" in str(dtype)
    return not (float8 or dtype == torch.complex32) if kind in SPARSE else not (float8 and kind == "negated")


@st.composite
def gradients(draw):
    """A list of gradients, of one dtype or of several."""
    dtypes = draw(st.sampled_from([*([dtype] for dtype in EPS), list(EPS)]))
    largest = min(LARGEST[dtype] for dtype in dtypes)
    scale = 10.0 ** draw(st.sampled_from([0, 0, -3, largest, *([-30] if largest == 25 else [])]))
    made = []
    for kind in draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4)):
        dtype = draw(st.sampled_from([dtype for dtype in dtypes if makes(kind, dtype)] or [torch.float32]))
        for i in range(min(COUNTS[kind], draw(st.sampled_from([1, 1, 3, 40, 120])))):

            def numbers(*shape, seed=i, dtype=dtype):
                wide = torch.complex128 if dtype.is_complex else torch.float64
                return (normal(*shape, seed=seed, dtype=wide) * scale).to(dtype)

            made.append(KINDS[kind](numbers))
    return made


def widened(x):
    """Return the numbers of a gradient as float64 or complex128, in memory of their own."""
    dense = x.detach().to_dense().resolve_conj().resolve_neg()
    return dense.to(torch.complex128 if x.is_complex() else torch.float64, copy=True)


def norm_of(tensors, ord):
    magnitudes = torch.cat([x.abs().reshape(-1) for x in tensors])
    peak = float(magnitudes.max()) if magnitudes.numel() else 0.0
    return peak * float(torch.linalg.vector_norm(magnitudes / peak, ord)) if peak else 0.0


def by_clip(params, most, ord):
    return clip_grad_norm_(params, most, ord)


def by_attach(params, most, ord):
    optimizer = torch.optim.SGD(params, lr=0.0)
    clipping = attach(optimizer, max_norm=most, norm_type=ord)
    clipping._clip(optimizer)  # the step itself takes no gradients of some kinds
    return clipping.norm


def by_dict(params, most, ord):
    return clip_grad_norm_({str(i): p.grad for i, p in enumerate(params)}, most, ord)


def by_halves(params, most, ord):
    norm = get_total_norm([p.grad for p in params], ord)
    clip_grads_with_norm_(params, most, norm)
    return norm


@settings(max_examples=250)
@given(
    gradients(),
    st.sampled_from([by_clip, by_clip, by_attach, by_dict, by_halves]),
    st.sampled_from([2.0, 2.0, 1.0, 3.0, 0.5, math.inf]),
    st.sampled_from([0.5, 1e-3, 0.0, 2.0]),
)
def test_norm_and_gradients(made, clip, ord, share):
    params, before = [param(x) for x in made], [widened(x) for x in made]
    right = norm_of(before, ord)
    norm = clip(params, share * right, ord)
    wide = {x.dtype for x in made} <= WIDE
    if norm.dtype == torch.float64 or right < 3.4e38:
        assert float(norm) == pytest.approx(right, rel=1e-12 if wide else 1e-6, abs=2.0**-149)
    elif clip is by_halves:
        return  # the norm is inf in float32, and was all that is known
    else:
        assert math.isinf(norm)
    assert_close(params, before, min(share, 1.0) if right else 1.0, 1e-12 if wide else 2e-6)


@settings(max_examples=100)
@given(gradients(), st.sampled_from([0.3, 2.0]))
def test_by_value(made, share):
    params, before = [param(x) for x in made], [widened(x) for x in made]
    peak = norm_of(before, math.inf) * share
    if any(x.is_complex() for x in made):
        with pytest.raises(TypeError, match="expected real"):
            clip_grad_value_(params, peak)
    else:
        clip_grad_value_(params, peak)
        before = [x.clamp(-peak, peak) for x in before]
    assert_close(params, before, 1.0, 0.0)


def assert_close(params, before, factor, rel):
    for p, was in zip(params, before, strict=True):
        right = was * factor
        error = (widened(p.grad) - right).abs()
        assert bool((error <= right.abs() * (EPS[p.dtype] + rel) + 2 * TINY.get(p.dtype, 0.0)).all())
