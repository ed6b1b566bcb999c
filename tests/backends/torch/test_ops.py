"""The operations for any device give what those for the host do; there are no other devices where the tests run.

The branch for accelerators is made to believe that it runs on one: its calls are the same on every device.
"""

import math

import pytest
import torch

from gradclip._coefficient import coefficient
from gradclip.backends.torch import _ops
from gradclip.backends.torch._leaves import _DEVICE as DEVICE
from gradclip.backends.torch._leaves import HOST
from gradclip.backends.torch._spread import SpreadOps
from tests import exact
from tests.backends.torch.helpers import normal, values

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.complex128]


@pytest.fixture(params=["as on a host", "as on an accelerator", "as on two devices"])
def device_ops(request, monkeypatch):
    if request.param == "as on two devices":  # one a host, the other not
        return SpreadOps(DEVICE.xp, [(HOST, [0, 3]), (DEVICE, [1, 2])])
    if request.param == "as on an accelerator":
        monkeypatch.setattr(_ops, "_in_memory", lambda x: False)
    return DEVICE


def leaves_of(dtype, scale=1.0):
    return [normal(*shape, seed=i, dtype=dtype) * scale for i, shape in enumerate([(), (3, 5), (0, 2), (700,)])]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ord", [1.0, 2.0, 3.0, 0.5, 6.0, math.inf])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_norms(device_ops, dtype, ord, scale):
    some = leaves_of(dtype, scale if dtype != torch.float16 else 1.0)
    right = exact.norm(values(*some), ord)
    tolerance = 1e-13 if dtype in (torch.float64, torch.complex128) else 1e-6
    for ops in (device_ops, HOST):
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
        mine[1][0, 0] = other[1][0, 0] = math.nan
    for ops, some in ((device_ops, mine), (HOST, other)):
        c = coefficient(ops.partial(some, 2.0), max_norm, nonfinite=nonfinite)
        ops.scale_(some, [c] * len(some))
    for a, b, before in zip(mine, other, leaves_of(dtype), strict=True):
        rtol = {torch.float64: 1e-14, torch.complex128: 1e-14, torch.float32: 3e-7, torch.complex64: 5e-7}.get(dtype, 0)
        torch.testing.assert_close(a, b, rtol=rtol, atol=0 if rtol else 1e-4, equal_nan=True)
        if max_norm > 1 and not bad:
            assert torch.equal(a, before)


def test_many_small_leaves_are_multiplied_in_groups(monkeypatch):
    monkeypatch.setattr(_ops, "_in_memory", lambda x: False)
    monkeypatch.setattr(_ops, "_TOGETHER", 100)
    some = [normal(3, n, seed=n).t() for n in range(40)]
    want = [x * 0.25 for x in some]
    c = coefficient(DEVICE.partial([torch.full((), 4.0)], 2.0), 1.0)
    DEVICE.scale_(some, [c] * len(some))
    for x, right in zip(some, want, strict=True):
        assert torch.equal(x, right)
        assert not x.is_contiguous() or x.shape[0] <= 1, "the layout stays"


def test_vmap_on_an_accelerator(monkeypatch):
    monkeypatch.setattr(_ops, "_in_memory", lambda x: False)

    def clipped(row):
        parts = [row[:2].clone(), row[2:].clone()]
        c = coefficient(DEVICE.partial(parts, 2.0), 1.0)
        DEVICE.scale_(parts, [c, c])
        return torch.cat(parts)

    rows = normal(3, 5) * 10
    torch.testing.assert_close(torch.func.vmap(clipped)(rows), rows / rows.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("dtype", DTYPES[:4])
def test_clamping(device_ops, dtype):
    mine, other = leaves_of(dtype), leaves_of(dtype)
    device_ops.clamp_(mine, -0.5, 0.25)
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b.clamp(-0.5, 0.25), rtol=0, atol=0)
