"""The operations for any device give what those for the host do; there are no other devices where the tests run.

The branch for accelerators is made to believe that it runs on one: its calls are the same on every device.
"""

import math

import pytest
import torch

from gradclip._coefficient import coefficient
from gradclip._decision import Rule
from gradclip.backends.torch import clip_grad_norm_, clip_grad_value_, get_total_norm
from gradclip.backends.torch.ops import _device
from gradclip.backends.torch.ops._device import DEVICE
from gradclip.backends.torch.ops._devices import SeveralDevices
from gradclip.backends.torch.ops._host import host_ops
from tests import exact
from tests.backends.torch.helpers import normal, values

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

FLOAT8 = [torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz]
REAL = [torch.float32, torch.float64, torch.bfloat16, torch.float16, *FLOAT8]
DTYPES = [*REAL, torch.complex32, torch.complex64, torch.complex128]
HALF = [torch.float16, torch.complex32, *FLOAT8]


@pytest.fixture(params=["as on a host", "as on an accelerator", "as on two devices"])
def device_ops(request, monkeypatch):
    if request.param == "as on two devices":  # one a host, the other not
        return SeveralDevices({"host": (host_ops(), [0, 3]), "other": (DEVICE, [1, 2])})
    if request.param == "as on an accelerator":
        monkeypatch.setattr(_device, "_in_memory", lambda x: False)
    return DEVICE


def leaves_of(dtype, scale=1.0):
    wide = torch.complex128 if dtype.is_complex else torch.float64
    shapes = enumerate([(), (3, 5), (0, 2), (700,)])
    return [(normal(*shape, seed=i, dtype=wide) * scale).to(dtype) for i, shape in shapes]


def wide(x):
    """What PyTorch can compare."""
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ord", [1.0, 2.0, 3.0, 0.5, 6.0, math.inf])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_norms(device_ops, dtype, ord, scale):
    some = leaves_of(dtype, scale if dtype not in HALF else 1.0)
    right = exact.norm(values(*some), ord)
    tolerance = 1e-13 if dtype in (torch.float64, torch.complex128) else 1e-6
    for ops in (device_ops, host_ops()):
        partial = ops.partial(some, ord)
        assert exact.relative_error(exact.stands_for(partial.scale, partial.total, ord), right) < tolerance
        batch = ops.partials(some, ord)
        for i, x in enumerate(some):
            got = exact.stands_for(batch.scale[i], batch.total[i], ord)
            assert exact.relative_error(got, exact.norm(values(x), ord)) < tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_norm", [1e9, 0.1])
@pytest.mark.parametrize("nonfinite", ["propagate", "zero"])
@pytest.mark.parametrize("bad", [False, True])
def test_scaling(device_ops, dtype, max_norm, nonfinite, bad):
    mine, other = leaves_of(dtype), leaves_of(dtype)
    if bad:
        mine[1][0, 0] = other[1][0, 0] = math.nan  # which each of them has
    for ops, some in ((device_ops, mine), (host_ops(), other)):
        c = coefficient(ops.partial(some, 2.0), max_norm, nonfinite=nonfinite)
        ops.scale_(some, [c] * len(some))
    for a, b, before in zip(mine, other, leaves_of(dtype), strict=True):
        rtol = {torch.float64: 1e-14, torch.complex128: 1e-14, torch.float32: 3e-7, torch.complex64: 5e-7}.get(dtype, 0)
        torch.testing.assert_close(wide(a), wide(b), rtol=rtol, atol=0 if rtol else 1e-4, equal_nan=True)
        if max_norm > 1 and not bad:
            assert torch.equal(wide(a), wide(before))


def test_many_small_leaves_are_multiplied_in_groups(monkeypatch):
    monkeypatch.setattr(_device, "_in_memory", lambda x: False)
    monkeypatch.setattr(_device, "JOINED_NUMEL", 100)
    some = [normal(3, n, seed=n).t() for n in range(40)]
    want = [x * 0.25 for x in some]
    c = coefficient(DEVICE.partial([torch.full((), 4.0)], 2.0), 1.0)
    DEVICE.scale_(some, [c] * len(some))
    for x, right in zip(some, want, strict=True):
        assert torch.equal(x, right)
        assert not x.is_contiguous() or x.shape[0] <= 1, "the layout stays"


def test_vmap_on_an_accelerator(monkeypatch):
    monkeypatch.setattr(_device, "_in_memory", lambda x: False)

    def clipped(row):
        parts = [row[:2].clone(), row[2:].clone()]
        c = coefficient(DEVICE.partial(parts, 2.0), 1.0)
        DEVICE.scale_(parts, [c, c])
        return torch.cat(parts)

    rows = normal(3, 5) * 10
    torch.testing.assert_close(torch.func.vmap(clipped)(rows), rows / rows.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("bounds", [(-0.5, 0.25), (-1e9, 1e9), (-math.inf, math.inf)])
@pytest.mark.parametrize("as_tensors", [False, True])
def test_clamping(device_ops, dtype, bounds, as_tensors):
    mine, other = leaves_of(dtype), leaves_of(dtype)
    given = list(map(torch.tensor, bounds)) if as_tensors else bounds
    device_ops.clamp_(mine, *given)
    for a, b, pure in zip(mine, other, device_ops.clamp(other, *given), strict=True):
        assert torch.equal(wide(a), wide(b).clamp(*bounds))
        assert torch.equal(wide(pure), wide(a))


@pytest.mark.parametrize("dtype", [*FLOAT8, torch.complex32])
def test_large_leaves_of_what_pytorch_only_stores_are_widened_in_pieces(device_ops, dtype, monkeypatch):
    """As many elements as are widened at once, and any layout."""
    monkeypatch.setattr(_device, "HOST_CHUNK_NUMEL", 1000)
    monkeypatch.setattr(_device, "DEVICE_CHUNK_NUMEL", 1000)
    parts = []
    widened = _device.widened
    monkeypatch.setattr(_device, "widened", lambda x: parts.append(x.numel()) or widened(x))
    some = [leaves_of(dtype)[1], *(normal(50, 70, seed=i, dtype=torch.float32).to(dtype) for i in range(3))]
    some[2], some[3] = some[2].T, torch.cat([some[3], some[3]])[::2, :: -1 * -2]
    before = [wide(x) for x in some]
    c = coefficient(DEVICE.partial([torch.full((), 4.0)], 2.0), 1.0)
    device_ops.scale_(some, [c] * len(some))
    for x, was in zip(some, before, strict=True):
        assert torch.equal(wide(x), wide((was * 0.25).to(dtype)))
    assert 0 < max(parts) <= 1000


def test_what_pytorch_has_no_numbers_of_is_refused_before_the_norm():
    """float8_e8m0fnu has no sign and no zero; float4_e2m1fn_x2 is two numbers in one element."""
    good = torch.full((2,), 9.0)
    for bad in (torch.ones(2).to(torch.float8_e8m0fnu), torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)):
        for call in (clip_grad_norm_, clip_grad_value_, lambda grads, _: get_total_norm(grads)):
            with pytest.raises(TypeError, match=r"\['bad'\] has dtype torch.float\w+, expected real or complex"):
                call({"good": good, "bad": bad}, 1.0)
    assert (good == 9).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_a_norm_in_double_precision_stays_so_over_devices(dtype):
    some = [torch.tensor([1.0, 1e-9], dtype=dtype), torch.tensor([1.0], dtype=dtype)]
    for leaves in (some, [some[0], torch.ones(1)]):
        both = SeveralDevices({i: (host_ops(), [i]) for i in range(2)})
        assert both.partial(leaves, 2.0).norm().dtype == torch.float64
        assert host_ops().decide(leaves, Rule(1.0)).norm.dtype == torch.float64
    assert host_ops().decide([torch.ones(1)], Rule(1.0)).norm.dtype == torch.float32
