"""PyTorch's tensors through the core: plain CPU tensors are read and written in place; traced ones are not."""

import pytest

import gradclip
from gradclip import _native
from gradclip._array_ops import ArrayOps
from gradclip._dlpack_finder import finder
from gradclip._host_ops import HostOps
from gradclip._tensor_memory import TensorMemory, tensor_memory
from gradclip._tree import flatten

torch = pytest.importorskip("torch")


def three_and_four():
    return torch.tensor([3.0, 4.0])


class OwnTensor(torch.Tensor):
    pass


PLAIN = {
    "float32": lambda: torch.ones(3, 4),
    "several dtypes": lambda: [torch.ones(3), torch.ones(2, dtype=torch.bfloat16), torch.ones(5, dtype=torch.float64)],
    "float16": lambda: torch.ones(7, dtype=torch.float16),
    "complex": lambda: [torch.ones(3), torch.ones(3, dtype=torch.complex64)],
    "a part of another tensor": lambda: torch.ones(5, 4)[2:],
    "an axis of length 1": lambda: torch.ones(4, 6)[:, None][:, :, :].transpose(0, 1),
    "a number": lambda: torch.tensor(2.0),
    "a parameter": lambda: torch.nn.Parameter(torch.ones(3)),
}
OTHERS = {
    "transposed": lambda: torch.ones(3, 4).T,
    "gaps": lambda: torch.ones(3, 4)[:, :2],
    "expanded": lambda: torch.ones(3, 1).expand(3, 4),
    "float8": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "integers": lambda: torch.ones(3, dtype=torch.int32),
    "no elements": lambda: torch.ones(0),
    "not in the host's memory": lambda: torch.ones(3, device="meta"),
    "sparse": lambda: torch.ones(3).to_sparse(),
}
has_exchange = pytest.mark.skipif(
    finder(torch.Tensor) is None or _native.kernels() is None, reason="no kernels, or a PyTorch before DLPack 1.3"
)


def listed(made):
    return made if isinstance(made, list) else [made]


@has_exchange
@pytest.mark.parametrize("case", PLAIN)
def test_pytorch_tells_where_plain_tensors_are(case):
    leaves = listed(PLAIN[case]())
    runs = tensor_memory(torch).alike(leaves)
    assert list(runs.table.addresses) == [x.data_ptr() for x in leaves]
    assert list(runs.table.nbytes) == [x.nbytes for x in leaves]
    names = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float64: "float64"}
    assert list(runs.table.codes) == [_native.CODES[names.get(x.dtype, "float32")] for x in leaves]
    assert runs.is_complex == any(x.is_complex() for x in leaves)


@pytest.mark.parametrize("case", OTHERS)
def test_tensors_that_are_not_plain_are_looked_at_one_by_one(case):
    leaves = [three_and_four(), OTHERS[case]()]
    assert tensor_memory(torch).alike(leaves) is None


def test_tensors_in_a_transform_have_no_address():
    seen = []
    torch.func.vmap(lambda x: (seen.append(tensor_memory(torch).alike([x])), x)[1])(torch.ones(2, 3))
    assert seen == [None]


def test_a_pytorch_before_the_exchange_api_is_asked_for_attributes(monkeypatch):
    memory = TensorMemory(torch)
    leaves = [torch.ones(3), torch.ones(2, 2)]
    new = memory.alike(leaves)
    monkeypatch.setattr(memory, "_find", None)
    old = memory.alike(leaves)
    assert (old.table.addresses, old.table.nbytes) == (new.table.addresses, new.table.nbytes)
    assert old.table.codes == new.table.codes
    assert memory.alike([torch.ones(3), torch.ones(3, device="meta")]) is None


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e5m2])  # float8 is for operations without kernels
def test_tensors_of_inference_mode_are_refused_elsewhere_before_any_write(dtype):
    with torch.inference_mode():
        inference = three_and_four().to(dtype)
    free = three_and_four().to(dtype)
    for clip in (gradclip.clip_by_global_norm_, gradclip.clip_by_norm_, gradclip.clip_by_value_):
        with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
            clip([free, inference], 1.0)
    assert torch.equal(free.float(), three_and_four())
    assert torch.equal(inference.float(), three_and_four())
    inference = inference.float()
    with torch.inference_mode():
        gradclip.clip_by_global_norm_(inference, 1.0)
    torch.testing.assert_close(inference, torch.tensor([0.6, 0.8]))


def test_views_that_negate_or_conjugate():
    negated = torch._neg_view(three_and_four())
    torch.testing.assert_close(gradclip.clip_by_value(negated, 1.0), torch.tensor([-1.0, -1.0]))
    base = torch.tensor([3.0 + 4.0j])
    gradclip.clip_by_global_norm_(base.conj(), 1.0)
    torch.testing.assert_close(base, torch.tensor([0.6 + 0.8j]))
