"""Calls with the wrong arguments: what the function takes, and which one was probably meant."""

import importlib
import inspect
import pickle

import numpy as np
import pytest

import gradclip

OPTAX = {
    "clip_by_global_norm": "clip_by_global_norm(max_norm)",
    "clip_by_value": "clip(max_delta)",
    "clip_by_rms": "clip_by_block_rms(threshold)",
    "adaptive_grad_clip": "adaptive_grad_clip(clipping)",
}


def api_of(name):
    pytest.importorskip(name)
    return importlib.import_module(name)


@pytest.mark.parametrize("module", ["gradclip", "gradclip.backends.jax"])
@pytest.mark.parametrize("name", OPTAX)
def test_a_function_called_as_optax_has_it(module, name):
    api = api_of(module)
    message = rf"{name}\(\): missing a required argument: '(max_\w+|params)'; expected {name}\(grads, "
    with pytest.raises(TypeError, match=message) as error:
        getattr(api, name)(1.0)
    assert str(error.value).endswith(f"for optax.chain(), pass gradclip.backends.optax.{OPTAX[name]}")
    there = importlib.import_module("gradclip.backends.optax")
    getattr(there, OPTAX[name].partition("(")[0])(1.0)


@pytest.mark.parametrize(
    ("module", "name"),
    [("gradclip", "clip_by_value"), ("gradclip", "clip_by_value_"), ("gradclip.backends.jax", "clip_by_value"),
     ("gradclip.backends.cupy", "clip_by_value"), ("gradclip.backends.cupy", "clip_by_value_")],
)  # fmt: skip
def test_two_bounds_by_position(module, name):
    api = api_of(module)
    message = rf"{name}\(\): too many positional arguments; expected {name}\(grads, max_value, \*, min_value=None"
    with pytest.raises(TypeError, match=message) as error:
        getattr(api, name)(np.ones(2), -1, 1)
    assert str(error.value).endswith(f"; write {name}(grads, min_value=-1.0, max_value=1.0)")


def test_other_wrong_calls():
    with pytest.raises(
        TypeError, match=r"unexpected keyword argument 'norm_type'; expected .*\(grads, max_norm, \*, o"
    ):
        gradclip.clip_by_global_norm(np.ones(2), 1.0, norm_type=2.0)
    with pytest.raises(TypeError, match=r"too many positional arguments; .*; pass what follows the \* by name"):
        gradclip.clip_by_global_norm(np.ones(2), 1.0, 2.0)


def test_a_type_error_from_within_is_left_alone():
    with pytest.raises(TypeError, match=r"^grads is a float, expected an array"):
        gradclip.clip_by_global_norm(1.0, 1.0)


def test_a_function_stays_what_it_is():
    function = gradclip.clip_by_value
    assert list(inspect.signature(function).parameters) == ["grads", "max_value", "min_value"]
    assert pickle.loads(pickle.dumps(function)) is function
