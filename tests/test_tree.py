"""Containers: the result has the structure of the argument."""

from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import optree
import pytest

import gradclip


class Pair(NamedTuple):
    w: object
    b: object


@dataclass
class Layer:
    w: object
    b: object = None
    name: object = field(default=None, init=False)


@dataclass(frozen=True)
class Frozen:
    inner: object


@dataclass
class Validated:
    w: object

    def __post_init__(self):
        raise AssertionError("a container must not be constructed anew")


class Registered:
    def __init__(self, leaf):
        self.leaf = leaf


optree.register_pytree_node(
    Registered,
    lambda node: ((node.leaf,), None),
    lambda _, children: Registered(*children),
    namespace=optree.registry.__GLOBAL_NAMESPACE,
)


def three():
    return np.full(9, 1.0)


def clip(grads):
    return gradclip.clip_by_norm(grads, 1.0)


def test_every_kind_of_container_comes_back_as_it_was():
    grads = {
        "list": [three(), (three(), None)],
        "named": Pair(three(), None),
        "ordered": OrderedDict(z=three(), a=three()),
        "default": defaultdict(list, k=[three()]),
        "empty": [[], (), {}, None],
        "data": Layer(three(), [Frozen((three(), None))]),
    }
    out = clip(grads)
    assert list(out) == list(grads)
    assert isinstance(out["list"][1], tuple)
    assert out["list"][1][1] is None
    assert isinstance(out["named"], Pair)
    assert list(out["ordered"]) == ["z", "a"]
    assert isinstance(out["ordered"], OrderedDict)
    assert isinstance(out["default"], defaultdict)
    assert out["default"].default_factory is list
    assert out["empty"] == [[], (), {}, None]
    assert isinstance(out["data"], Layer)
    assert isinstance(out["data"].b[0], Frozen)
    leaves = [
        out["list"][0], out["list"][1][0], out["named"].w, out["ordered"]["z"], out["ordered"]["a"],
        out["default"]["k"][0],
        out["data"].w, out["data"].b[0].inner[0],
    ]  # fmt: skip
    for leaf in leaves:
        np.testing.assert_allclose(leaf, 1 / 3)
    assert (grads["data"].w == 1).all()


def test_dataclasses_are_copied_not_constructed():
    node = object.__new__(Validated)
    node.w = three()
    out = clip(node)
    assert out is not node
    np.testing.assert_allclose(out.w, 1 / 3)
    np.testing.assert_allclose(clip(Frozen(Frozen(three()))).inner.inner, 1 / 3)


def test_registered_nodes():
    out = clip([Registered(three())])
    np.testing.assert_allclose(out[0].leaf, 1 / 3)


def test_keys_that_have_no_order_keep_the_order_of_insertion():
    out = clip({("a", 1): three(), 3: three(), "b": three()})
    assert list(out) == [("a", 1), 3, "b"]


def test_the_norm_does_not_depend_on_the_order_of_keys():
    rng = np.random.default_rng(0)
    leaves = {f"layer{i}": rng.standard_normal(1000).astype(np.float32) for i in range(20)}
    shuffled = dict(sorted(leaves.items(), key=lambda item: hash(item[0])))
    assert gradclip.global_norm(leaves).tobytes() == gradclip.global_norm(shuffled).tobytes()


@pytest.mark.parametrize(
    ("grads", "path"),
    [
        ({"a": [three(), (three(), 3.0)]}, r"grads\['a'\]\[1\]\[1\] is a float"),
        (Pair(three(), "x"), r"grads(\.b|\[1\]) is a str"),
        (Layer(three(), [Frozen({"k": 7})]), r"grads\.b\[0\]\.inner\['k'\] is an int"),
        ([np.ones(2), np.ones(2, np.int32)], r"grads\[1\] has dtype int32"),
        ([np.ones(2, bool)], r"grads\[0\] has dtype bool"),
        (np.array(["a"]), r"grads has dtype <U1"),
        ((g for g in [three()]), r"grads is a generator.*pass list\(\.\.\.\) of it"),
        (Layer, r"grads is a type"),
        ([np.ma.masked_array([1.0], [True])], r"grads\[0\] is a MaskedArray"),
    ],
)
def test_what_is_not_a_gradient_is_named_by_its_path(grads, path):
    for call in (gradclip.global_norm, clip, lambda g: gradclip.clip_by_global_norm_(g, 1.0)):
        with pytest.raises(TypeError, match=path):
            call(grads)


def test_leaves_of_two_namespaces_are_named():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"grads\['a'\] is an ndarray and grads\['b'\] a Tensor, expected arrays"):
        gradclip.global_norm({"a": three(), "b": torch.ones(3)})
