"""The public functions: written once as methods, bound for the core and for adapters as functions of their modules."""

import copy
import doctest
import importlib
import inspect
import pickle
from importlib.util import find_spec

import numpy as np
import pytest

import gradclip
from gradclip._functions import Functions

BOUND = sorted(name for name in vars(importlib.import_module("gradclip._functions")) if name in gradclip.__all__)
ADAPTERS = ["gradclip"] + [f"gradclip.backends.{name}" for name in ("cupy", "torch") if find_spec(name)]
OWN_SIGNATURES = {("gradclip.backends.torch", name) for name in ("adaptive_grad_clip_", "clip_spikes_")}
PAIRS = [(module, name) for module in ADAPTERS for name in BOUND]


def bound_of(module):
    """Return the class whose methods a module's functions are."""
    module = importlib.import_module(f"{module}._functions")
    (found,) = {type(value) for value in vars(module).values() if isinstance(value, Functions)}
    return found


def test_all_names_are_everywhere():
    assert sorted([*BOUND, "Clipper", "NonFiniteError", "NormPartial"]) == gradclip.__all__
    for module in ADAPTERS:
        assert set(gradclip.__all__) <= set(importlib.import_module(module).__all__)


@pytest.mark.parametrize(("module", "name"), PAIRS)
def test_each_is_a_function_of_the_module_where_it_is_public(module, name):
    function = getattr(importlib.import_module(module), name)
    assert inspect.isfunction(function)
    assert (function.__name__, function.__qualname__) == (name, name)
    assert function.__module__.startswith(module)
    assert pickle.loads(pickle.dumps(function)) is function
    assert copy.deepcopy(function) is function


@pytest.mark.parametrize(("module", "name"), [pair for pair in PAIRS if pair not in OWN_SIGNATURES])
def test_signatures_are_the_cores(module, name):
    mine, core = (inspect.signature(getattr(importlib.import_module(m), name)) for m in (module, "gradclip"))
    assert mine == core
    assert "self" not in mine.parameters
    method = inspect.signature(getattr(Functions, name))
    assert list(mine.parameters.values()) == list(method.parameters.values())[1:]


@pytest.mark.parametrize("module", ADAPTERS)
def test_what_an_adapter_says_otherwise_is_said_by_the_core(module):
    docs = [getattr(gradclip, name).__doc__ for name in BOUND]
    for phrase in bound_of(module).words:
        assert any(phrase in doc for doc in docs), f"no docstring says {phrase!r}"


@pytest.mark.parametrize(("module", "name"), PAIRS)
def test_docstrings_are_whole(module, name):
    doc = inspect.getdoc(getattr(importlib.import_module(module), name))
    for part in ("Parameters\n----------\n", "Raises\n------\n", "Examples\n--------\n"):
        assert part in doc
    assert "array or container of arrays" not in doc or module == "gradclip"


@pytest.mark.parametrize("name", BOUND)
def test_the_example_of_each_is_run_where_it_is_written(name):
    written = inspect.getmodule(inspect.getattr_static(Functions, name))
    found = [test for test in doctest.DocTestFinder().find(written) if test.name.endswith(f".{name}")]
    assert len(found) == 1
    assert found[0].examples


def test_an_adapter_says_where_its_functions_are_and_what_its_leaves_are():
    seen = []

    class Mine(Functions):
        module = __name__

        def leaves_(self, grads, caller):
            seen.append(caller)
            return super().leaves_([x.array for x in grads], caller)

    class Holder:
        array = np.array([3.0, 4.0])

    Mine().clip_by_norm_([Holder], 1.0)
    assert Holder.array.tolist() == pytest.approx([0.6, 0.8])
    assert seen == ["clip_by_norm_"]


def test_an_adapters_own_units():
    class RowsFirst(Functions):
        def units(self, axis):
            return (lambda shape: tuple(range(1, len(shape)))) if axis is None else axis

    grads, params = np.array([[3.0, 4.0], [0.3, 0.4]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    got = RowsFirst().adaptive_grad_clip(grads, params, 1.0)
    np.testing.assert_allclose(got, [[0.6, 0.8], [0.3, 0.4]], rtol=1e-15)
    np.testing.assert_allclose(
        RowsFirst().adaptive_grad_clip(grads, params, 1.0, axis=(0, 1)),
        got * 0 + grads * 2**0.5 / np.hypot(5, 0.5),
        rtol=1e-15,
    )


def test_no_examples_of_no_leaves():
    summed, clipped = gradclip.clip_per_example({}, 1.0)
    assert summed == {}
    assert (clipped.dtype, clipped.shape, int(clipped)) == (np.int32, (), 0)
