"""Properties of dtypes, in every namespace that has them."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch

from gradclip import _dtypes

NAMES = sorted(_dtypes.LARGEST)


def numpy_dtype(name):
    return np.dtype(getattr(ml_dtypes, name, None) or name)


@pytest.mark.parametrize("name", NAMES)
def test_the_real_dtypes(name):
    """What the table says is what the dtypes say, in either byte order."""
    for dtype in (numpy_dtype(name).newbyteorder(order) for order in "<>"):
        assert _dtypes.dtype_name(dtype) == name
        assert _dtypes.is_real(dtype)
        assert not _dtypes.is_complex(dtype)
        assert _dtypes.is_double(dtype) == (name == "float64")
        assert _dtypes.largest(dtype) == float(ml_dtypes.finfo(dtype.type).max)
        assert _dtypes.is_narrow(dtype) == (ml_dtypes.finfo(dtype.type).bits < 16)
        assert _dtypes.has_infinity(dtype) == math.isinf(float(np.array([math.inf]).astype(dtype)[0]))


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(torch, name)])
def test_they_are_the_same_in_pytorch(name):
    dtype = getattr(torch, name)
    assert _dtypes.dtype_name(dtype) == name
    assert _dtypes.largest(dtype) == torch.finfo(dtype).max


@pytest.mark.parametrize("name", ["float8_e8m0fnu", "float4_e2m1fn_x2"])
def test_dtypes_that_no_gradient_can_have(name):
    assert not _dtypes.is_real(getattr(torch, name))


@pytest.mark.parametrize(
    "dtype", [np.float64, np.dtype("f8"), np.dtype(">c16"), torch.float64, torch.complex128, "float64"]
)
def test_double_precision_by_whatever_name(dtype):
    assert _dtypes.is_double(dtype)


@pytest.mark.parametrize("name", _dtypes.COMPONENTS)
def test_complex_dtypes_and_their_parts(name):
    dtype, part = (getattr(torch, n) for n in (name, _dtypes.COMPONENTS[name]))
    assert dtype.to_real() == part
    assert _dtypes.is_complex(dtype)
    assert _dtypes.is_floating(dtype)
    assert not _dtypes.is_real(dtype)


@pytest.mark.parametrize(("double", "dtype"), [(True, np.float64), (False, np.float32)])
def test_the_smallest_normal_number(double, dtype):
    smallest = _dtypes.SMALLEST_NORMAL[double]
    assert smallest == np.finfo(dtype).smallest_normal
    assert smallest <= 1 / smallest <= np.finfo(dtype).max
