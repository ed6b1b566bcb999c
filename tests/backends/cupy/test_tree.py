"""Containers: Chainer's links and parameters, arrays by DLPack, arrays that are the same or overlap."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gradclip._decision import Rule
from gradclip._global import clip_leaves, clip_leaves_
from gradclip.backends.cupy import _tree
from tests.backends.cupy.emulated import NumpySource, leaves, needs_compiler

RULE = Rule(1.0)


class Parameter:
    """As Chainer's: an array, and its gradient or None."""

    def __init__(self, data, grad):
        self.data, self.grad = np.array(data), None if grad is None else np.array(grad)


class Link:
    """As Chainer's: it names its parameters."""

    def __init__(self, **params):
        self.params = params

    def namedparams(self):
        return (("/" + name, p) for name, p in self.params.items())


@needs_compiler
def test_parameters_and_links(gpu):
    link = Link(W=Parameter([1.0], [3.0]), b=Parameter([1.0], None))
    container = {"layer": link, "other": [Parameter([1.0], [4.0]), Parameter([1.0], None), None]}
    tree = leaves(gpu, container)
    assert tree.array_paths() == ["grads['layer']/W", "grads['other'][0].grad"]
    out, decision = clip_leaves(tree, RULE)
    assert decision.norm == 5
    np.testing.assert_allclose(out["layer"]["/W"], [0.6])
    assert out["layer"]["/b"] is None
    np.testing.assert_allclose(out["other"][0], [0.8])
    assert out["other"][1:] == [None, None]
    clip_leaves_(leaves(gpu, container), RULE)
    np.testing.assert_allclose(link.params["W"].grad, [0.6])


def test_the_data_of_parameters(gpu):
    source = NumpySource(gpu, "data")
    found = _tree.leaves_of(source, [Parameter([2.0], None), Link(W=Parameter([3.0], None))], "params")
    assert [x.tolist() for x in found.arrays] == [[2.0], [3.0]]


@needs_compiler
def test_arrays_by_dlpack_share_their_memory(gpu, monkeypatch):
    monkeypatch.setattr(_tree, "_CUDA", {1})  # DLPack's number for the CPU, which plays the GPU here
    x = torch.tensor([3.0, 4.0])
    out, decision = clip_leaves(leaves(gpu, {"x": x}), RULE)
    assert isinstance(out["x"], torch.Tensor)
    assert x.tolist() == [3.0, 4.0]
    assert clip_leaves_(leaves(gpu, {"x": x, "again": x}), RULE).norm == decision.norm == 5
    torch.testing.assert_close(x, torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(out["x"], x)


def test_arrays_on_the_host_are_refused(gpu):
    with pytest.raises(TypeError, match=r"grads\['x'\] is a torch.Tensor, expected an array on a GPU"):
        leaves(gpu, {"x": torch.ones(2)})


@needs_compiler
def test_immutable_arrays_are_refused_before_a_write(gpu, monkeypatch):
    jnp = pytest.importorskip("jax.numpy")
    monkeypatch.setattr(_tree, "_CUDA", {1})
    x = np.array([3.0, 4.0])
    tree = leaves(gpu, [x, jnp.ones(3)])
    with pytest.raises(TypeError, match=r"cannot be written, expected writable arrays; use .*clip_by_global_norm\(\)"):
        clip_leaves_(tree, RULE)
    assert x.tolist() == [3.0, 4.0]
    out, _ = clip_leaves(tree, RULE)
    assert isinstance(out[1], type(jnp.ones(3)))


@needs_compiler
def test_the_same_array_counts_once_and_is_scaled_once(gpu):
    x = np.array([3.0, 4.0])
    assert clip_leaves_(leaves(gpu, [x, x[:], [x]]), RULE).norm == 5
    np.testing.assert_allclose(x, [0.6, 0.8])


@pytest.mark.parametrize("views", [lambda x: [x[:3], x[2:]], lambda x: [np.broadcast_to(x[:1], (4,))]])
def test_overlap_is_refused_before_a_write(gpu, views):
    x = np.arange(6.0)
    with pytest.raises(ValueError, match=r"grads\[0\].* overlap"):
        leaves(gpu, views(x)).scale_([SimpleNamespace()], "clip_by_norm")
    assert x.tolist() == np.arange(6.0).tolist()


def test_what_is_no_array_is_named(gpu):
    for wrong, name in ((3.0, "a float"), ("x", "a str"), (object(), "an object")):
        with pytest.raises(TypeError, match=rf"grads\[1\] is {name}, expected an array on a GPU"):
            leaves(gpu, [np.ones(2), wrong])
    with pytest.raises(TypeError, match=r"grads\[1\] has dtype int64"):
        leaves(gpu, [np.ones(2), np.arange(3)])


def test_nothing(gpu):
    out, decision = clip_leaves(leaves(gpu, {"a": None, "b": []}), RULE)
    assert out == {"a": None, "b": []}
    assert decision.norm == 0
    assert gpu.launched == []


def test_what_a_gpu_cannot_read_is_refused(gpu):
    askew = np.zeros(13, np.uint8)[1:].view(np.float32)
    with pytest.raises(ValueError, match=r"grads\[1\] lies at an address that is no multiple .* pass a copy"):
        leaves(gpu, [np.ones(2), askew])


def test_weights_of_pytorch_are_no_gradients(gpu, monkeypatch):
    monkeypatch.setattr(_tree, "_CUDA", {1})  # DLPack's number for the CPU, which plays the GPU here
    weights = [torch.nn.Parameter(torch.ones(2), requires_grad=False)]
    with pytest.raises(TypeError, match=r"grads\[0\] is a torch.nn.Parameter, expected a gradient"):
        leaves(gpu, weights)
    assert len(_tree.leaves_of(NumpySource(gpu, "grad"), weights, "grads", weights=True).arrays) == 1
    assert len(_tree.leaves_of(NumpySource(gpu, "data"), weights, "params").arrays) == 1
