"""Distinct gradients of a container: tied, sparse and expanded ones, and the operations for their device."""

from dataclasses import replace

import pytest
import torch

from gradclip._coefficient import Coefficient
from gradclip._host_ops import HostOps
from gradclip.backends.torch._leaves import gradients, leaves_of, ops_of
from gradclip.backends.torch.ops._device import DEVICE
from gradclip.backends.torch.ops._devices import SeveralDevices
from tests.backends.torch.helpers import param

HALF = Coefficient(2.0, 1.0, True)
SAME = Coefficient(1.0, 1.0, False)


def leaves(*grads):
    return leaves_of(list(grads), lambda: [f"g[{i}]" for i in range(len(grads))])


def sparse(values, *, coalesced):
    """Return a sparse tensor whose row 1 is stored twice unless it is coalesced."""
    rows = [1, 2] if coalesced else [1, 1]
    x = torch.sparse_coo_tensor(torch.tensor([rows]), torch.tensor(values), (4,), check_invariants=True)
    return x.coalesce() if coalesced else x


def test_a_gradient_that_occurs_twice_is_one_leaf():
    tied, other = torch.tensor([3.0]), torch.tensor([4.0])
    found = leaves(tied, other, tied)
    assert [x.tolist() for x in found.arrays] == [[3.0], [4.0]]
    assert list(found.slots) == [0, 1, 0]


@pytest.mark.parametrize("coalesced", [True, False])
def test_sparse_gradients_are_multiplied_where_they_are(coalesced):
    g = sparse([2.0, 6.0], coalesced=coalesced)
    found = leaves(g)
    assert [x.numel() for x in found.wholes] == [4]
    found.scale_([HALF], "clip_by_norm")
    assert g.to_dense().tolist() == ([0, 1, 3, 0] if coalesced else [0, 4, 0, 0])


def test_an_expanded_gradient_is_written_once():
    base = torch.tensor([8.0])
    leaves(base.expand(5)).scale_([HALF], "clip_by_norm")
    assert base.tolist() == [4.0]


def test_gradients_that_overlap_are_refused_before_any_is_written():
    base, other = torch.ones(6), torch.ones(2)
    with pytest.raises(ValueError, match=r"g\[1\] and g\[2\] overlap in memory"):
        leaves(other, base[:4], base[3:]).scale_([HALF] * 3, "clip_by_norm")
    assert (base.tolist(), other.tolist()) == ([1] * 6, [1] * 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e5m2])
@pytest.mark.parametrize("ops", [None, DEVICE])
def test_tensors_of_inference_mode_are_refused_elsewhere_before_any_is_written(dtype, ops):
    with torch.inference_mode():
        inference = torch.tensor([3.0, 4.0]).to(dtype)
    other = torch.ones(2).to(dtype)
    found = leaves(other, inference)
    found = found if ops is None else replace(found, ops=ops)
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode"):
        found.scale_([HALF] * 2, "clip_by_norm")
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode"):
        found.clamp_(-0.5, 0.5)
    assert (other.tolist(), inference.tolist()) == ([1, 1], [3, 4])
    with torch.inference_mode():
        found.scale_([HALF] * 2, "clip_by_norm")
    assert inference.tolist() == [1.5, 2]


def test_overlaps_do_not_matter_if_nothing_is_written():
    base = torch.ones(6)
    leaves(base[:4], base[3:]).scale_([SAME, SAME], "clip_by_norm")
    assert base._version == 0


def test_operations_are_those_of_the_gradients_devices():
    here, there = torch.ones(2), torch.ones(2, device="meta")
    assert isinstance(ops_of([here]), HostOps)
    assert ops_of([there]) is DEVICE
    assert isinstance(ops_of([here, there]), SeveralDevices)


def test_paths_skip_parameters_without_a_gradient():
    p = [param(torch.ones(1)), torch.nn.Parameter(torch.ones(1)), param(torch.ones(1))]
    assert gradients(p).paths() == ["parameters[0].grad", "parameters[2].grad"]
    assert gradients(x for x in p).paths() == gradients(p).paths()


def test_integer_gradients_are_refused_by_path():
    with pytest.raises(TypeError, match=r"g\[1\] has dtype torch.int64"):
        leaves(torch.ones(1), torch.ones(1, dtype=torch.int64))
