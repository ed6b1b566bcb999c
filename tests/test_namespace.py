"""Arrays without a device are refused by every public function, with the path of the leaf."""

import types

import pytest

import gradclip


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
