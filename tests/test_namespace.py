"""What is known of arrays and their dtypes."""

import math
import types

import ml_dtypes
import numpy as np
import pytest
import torch

import gradclip
from gradclip import _namespace as ns

NAMES = sorted(ns._LARGEST)


def numpy_dtype(name):
    return np.dtype(getattr(ml_dtypes, name, None) or name)


@pytest.mark.parametrize("name", NAMES)
def test_the_real_dtypes(name):
    """What the table says is what the dtypes say, in either byte order."""
    for dtype in (numpy_dtype(name).newbyteorder(order) for order in "<>"):
        assert ns.dtype_name(dtype) == name
        assert ns.is_real(dtype)
        assert not ns.is_complex(dtype)
        assert ns.is_double(dtype) == (name == "float64")
        assert ns.largest(dtype) == float(ml_dtypes.finfo(dtype.type).max)
        assert ns.is_narrow(dtype) == (ml_dtypes.finfo(dtype.type).bits < 16)
        assert ns.has_infinity(dtype) == math.isinf(float(np.array([math.inf]).astype(dtype)[0]))


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(torch, name)])
def test_they_are_the_same_in_pytorch(name):
    dtype = getattr(torch, name)
    assert ns.dtype_name(dtype) == name
    assert ns.largest(dtype) == torch.finfo(dtype).max


@pytest.mark.parametrize("name", ["float8_e8m0fnu", "float4_e2m1fn_x2"])
def test_dtypes_that_no_gradient_can_have(name):
    assert not ns.is_real(getattr(torch, name))


@pytest.mark.parametrize(
    "dtype", [np.float64, np.dtype("f8"), np.dtype(">c16"), torch.float64, torch.complex128, "float64"]
)
def test_double_precision_by_whatever_name(dtype):
    assert ns.is_double(dtype)


class Array:
    """An array of no known library, as MLX's are: it has a namespace, and does not tell its device."""

    shape, ndim, size, dtype = (2,), 1, 2, "float32"

    def __array_namespace__(self, api_version=None):
        return types.SimpleNamespace(float32="float32", __name__="odd")


FUNCTIONS = {
    "global_norm": gradclip.global_norm,
    "leaf_norms": gradclip.leaf_norms,
    "norm_partial": gradclip.norm_partial,
    "clip_by_global_norm": lambda grads: gradclip.clip_by_global_norm(grads, 1.0),
    "clip_by_global_norm_": lambda grads: gradclip.clip_by_global_norm_(grads, 1.0),
    "clip_by_norm": lambda grads: gradclip.clip_by_norm(grads, 1.0),
    "clip_by_value_": lambda grads: gradclip.clip_by_value_(grads, 1.0),
    "clip_per_example": lambda grads: gradclip.clip_per_example(grads, 1.0),
    "clip_with_norm": lambda grads: gradclip.clip_with_norm(grads, 1.0, 2.0),
    "adaptive_grad_clip": lambda grads: gradclip.adaptive_grad_clip(grads, grads),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_without_a_device(name):
    with pytest.raises(TypeError, match=r"grads\['w'\] is of type \S+\.Array, which has no \.device, expected .*numpy"):
        FUNCTIONS[name]({"w": Array()})
