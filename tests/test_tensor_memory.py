"""PyTorch's tensors through the core: plain CPU tensors are read and written in place; traced ones are not."""

import pytest

import gradclip
from gradclip._array_ops import ArrayOps
from gradclip._host_ops import HostOps
from gradclip._tree import flatten

torch = pytest.importorskip("torch")


def three_and_four():
    return torch.tensor([3.0, 4.0])


class OwnTensor(torch.Tensor):
    pass


def test_plain_tensors_take_the_kernels_and_others_do_not():
    assert isinstance(flatten([three_and_four()]).ops, HostOps)
    recorded = three_and_four().requires_grad_()
    for other in (recorded, three_and_four().as_subclass(OwnTensor), three_and_four().to("meta")):
        assert isinstance(flatten([three_and_four(), other]).ops if other is recorded else flatten(other).ops, ArrayOps)
    with torch.no_grad():
        assert isinstance(flatten(recorded).ops, HostOps)


def test_a_write_counts_the_version_up_and_no_write_does_not():
    grad = three_and_four()
    gradclip.clip_by_global_norm_(grad, 9.0)
    assert grad._version == 0
    gradclip.clip_by_global_norm_(grad, 1.0)
    assert grad._version > 0
    torch.testing.assert_close(grad, torch.tensor([0.6, 0.8]))


def test_a_threshold_has_its_derivative_where_gradients_have_none():
    limit = torch.tensor(1.0, requires_grad=True)
    clipped, _ = gradclip.clip_by_global_norm(three_and_four(), limit)
    clipped.sum().backward()
    torch.testing.assert_close(limit.grad, torch.tensor(1.4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own torch.jit.script
def test_forward_derivatives_pass():
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(three_and_four(), torch.tensor([1.0, 0.0]))
        tangent = torch.autograd.forward_ad.unpack_dual(gradclip.clip_by_global_norm(dual, 1.0)[0]).tangent
    torch.testing.assert_close(tangent, torch.tensor([0.128, -0.096]))


def test_tensors_of_inference_mode_are_refused_elsewhere_before_any_write():
    with torch.inference_mode():
        inference = three_and_four()
    free = three_and_four()
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        gradclip.clip_by_global_norm_([free, inference], 1.0)
    assert torch.equal(free, three_and_four())
    assert torch.equal(inference, three_and_four())
    with torch.inference_mode():
        gradclip.clip_by_global_norm_(inference, 1.0)
    torch.testing.assert_close(inference, torch.tensor([0.6, 0.8]))


def test_views_that_negate_or_conjugate():
    negated = torch._neg_view(three_and_four())
    torch.testing.assert_close(gradclip.clip_by_value(negated, 1.0), torch.tensor([-1.0, -1.0]))
    base = torch.tensor([3.0 + 4.0j])
    gradclip.clip_by_global_norm_(base.conj(), 1.0)
    torch.testing.assert_close(base, torch.tensor([0.6 + 0.8j]))
