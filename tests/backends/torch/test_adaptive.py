"""AGC on a model: units of PyTorch's layouts, exclusion by name, and what timm's function gives where it is right."""

import math
from collections import OrderedDict

import pytest
import torch
from torch import nn

from gradclip.backends.torch import adaptive_grad_clip_
from tests.backends.torch.helpers import normal, param


def model():
    torch.manual_seed(0)
    layers = OrderedDict(
        conv=nn.Conv2d(3, 4, 3),
        norm=nn.BatchNorm2d(4),
        flat=nn.Flatten(),
        hidden=nn.Linear(16, 5),
        head=nn.Linear(5, 2),
        scale=nn.Linear(1, 3),
    )
    made = nn.Sequential(layers)
    for i, p in enumerate(made.parameters()):
        p.grad = normal(*p.shape, seed=i) * (1 if i % 2 else 1e-4)
    return made


def units(x):
    """Return the units of a tensor, each as a list of numbers: timm's unitwise_norm takes these."""
    wide = x.detach().double()
    return [row.reshape(-1).tolist() for row in wide] if x.ndim > 1 else [wide.reshape(-1).tolist()]


def right(p, clipping, eps):
    """Return the clipped gradient of a parameter, unit by unit in float64."""
    out = []
    for g, w in zip(units(p.grad), units(p), strict=True):
        norm, most = math.hypot(*g), clipping * max(math.hypot(*w), eps)
        out.append([v * min(1.0, most / norm) if norm else v for v in g])
    return torch.tensor(out, dtype=torch.float64).reshape(p.shape)


@pytest.mark.parametrize(("clipping", "eps"), [(0.01, 1e-3), (0.5, 0.0), (1e-3, 10.0), (math.inf, 1e-3), (0.0, 1e-3)])
@pytest.mark.parametrize("pass_", ["model", "parameters", "generator", "named", "optimizer"])
def test_each_unit_by_the_norm_of_its_weights(clipping, eps, pass_):
    made = model()
    want = [right(p, clipping, eps) if clipping < math.inf else p.grad.double() for p in made.parameters()]
    given = {
        "model": made,
        "parameters": list(made.parameters()),
        "generator": made.parameters(),
        "named": made.named_parameters(),
        "optimizer": torch.optim.SGD(made.parameters()),
    }
    adaptive_grad_clip_(given[pass_], clipping, eps)
    for p, w in zip(made.parameters(), want, strict=True):
        torch.testing.assert_close(p.grad.double(), w, rtol=1e-6, atol=1e-30)


def test_units_that_need_no_clipping_keep_their_bits_and_their_memory():
    made = model()
    before = [(p.grad, p.grad.clone(), p.grad._version) for p in made.parameters()]
    adaptive_grad_clip_(made, 1e9)
    for p, (same, was, version) in zip(made.parameters(), before, strict=True):
        assert p.grad is same
        assert torch.equal(p.grad, was)
        assert p.grad._version == version, "not even written"


@pytest.mark.parametrize("exclude", ["head", ["head"], "head.*", ("head.weight", "head.bias"), "h?ad"])
def test_names_that_are_left_out(exclude):
    made = model()
    before = {name: p.grad.clone() for name, p in made.named_parameters()}
    adaptive_grad_clip_(made, 1e-6, exclude=exclude)
    same = {name for name, p in made.named_parameters() if torch.equal(p.grad, before[name])}
    assert same == {"head.weight", "head.bias"}


def test_a_frozen_head_is_left_out_as_well():
    made = model()
    made.head.weight.grad = made.head.bias.grad = None
    adaptive_grad_clip_(made, 1e-6, exclude="head")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_dtypes(dtype):
    p = param(normal(3, 4, dtype=torch.float64).to(dtype))
    with torch.no_grad():
        p.copy_(normal(3, 4, seed=1).to(dtype))
    wide = torch.complex128 if dtype.is_complex else torch.float64
    g, w = p.grad.to(wide, copy=True), p.detach().to(wide)
    norms, most = g.abs().square().sum(1).sqrt(), 0.1 * w.abs().square().sum(1).sqrt()
    adaptive_grad_clip_(p, 0.1)
    rtol = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float64: 1e-14, torch.complex64: 1e-6}[dtype]
    torch.testing.assert_close(p.grad.to(wide), g * (most / norms).clamp(max=1)[:, None], rtol=rtol, atol=1e-7)


def test_magnitudes_that_squares_do_not_hold():
    p = param(torch.full((2, 4), 1e25))
    with torch.no_grad():
        p[0], p[1] = 1e30, 1e-30
    adaptive_grad_clip_(p, 0.5, 0.0)
    torch.testing.assert_close(p.grad[0], torch.full((4,), 1e25))
    torch.testing.assert_close(p.grad[1] / 1e-30, torch.full((4,), 0.5))


def test_a_gradient_that_two_parameters_share_is_clipped_once():
    shared = normal(2, 3)
    p, q = param(shared), param(shared)
    with torch.no_grad():
        p.fill_(0.1), q.fill_(0.1)
    want = right(p, 0.5, 1e-3)
    adaptive_grad_clip_([p, q], 0.5)
    torch.testing.assert_close(shared.double(), want, rtol=1e-6, atol=0)


REFUSED = {
    "gradients": (lambda: [p.grad for p in model().parameters()], {}, TypeError, "expected parameters"),
    "a state_dict": (lambda: model().state_dict(), {}, TypeError, "a state_dict"),
    "nothing": (lambda: None, {}, TypeError, "is None"),
    "a name that fits nothing": (model, {"exclude": "fc"}, ValueError, r"exclude='fc' fits none of the 10 parameters"),
    "names that are none": (lambda: list(model().parameters()), {"exclude": "head"}, ValueError, "named_parameters"),
    "a parameter": (model, {"exclude": [torch.ones(1)]}, TypeError, "expected names"),
    "no names": (model, {"exclude": None}, TypeError, "exclude is None, expected names; leave it out"),
    "a ratio below 0": (model, {"clipping": -1.0}, ValueError, "clipping=-1"),
    "a NaN": (model, {"eps": math.nan}, ValueError, "eps=nan"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    make, arguments, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        adaptive_grad_clip_(make(), **arguments)


def test_sparse_gradients_are_refused_before_anything_is_written():
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1, 1])).sum().backward()
    made = model()
    before = [p.grad.clone() for p in made.parameters()]
    with pytest.raises(TypeError, match=r"layout torch\.sparse_coo, expected a dense gradient.*without sparse=True"):
        adaptive_grad_clip_([*made.parameters(), embedding.weight], 1e-6)
    assert all(torch.equal(p.grad, g) for p, g in zip(made.parameters(), before, strict=True))


def test_an_expanded_gradient_whose_units_share_their_elements_is_refused():
    base = torch.tensor([3.0, -4.0])
    p = param(base.expand(3, 2))
    with pytest.raises(ValueError, match=r"parameters\[0\]\.grad is expanded, so that its units share elements"):
        adaptive_grad_clip_([p], 1e-6)
    assert base.tolist() == [3, -4]


@pytest.mark.parametrize("shape", [(3, 1), (1, 2)])
def test_an_expanded_gradient_whose_units_do_not_is_clipped(shape):
    base = normal(*shape)
    p, q = (
        param(base.expand(3, 2) if shape[0] == 3 else base),
        param(base.expand(3, 2).clone() if shape[0] == 3 else base.clone()),
    )
    with torch.no_grad():
        p.copy_(normal(*p.shape, seed=1)), q.copy_(p)
    adaptive_grad_clip_([p], 0.1)
    adaptive_grad_clip_([q], 0.1)
    assert torch.equal(p.grad, q.grad)


@pytest.mark.parametrize("bias", [False, True])
def test_tied_weights_are_left_out_by_any_of_their_names(bias):
    made = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=bias)})
    made["head"].weight = made["embedding"].weight
    made["head"].weight.grad = normal(5, 3) * 50
    before = made["head"].weight.grad.clone()
    adaptive_grad_clip_(made, 1e-6, exclude="head")
    assert torch.equal(made["head"].weight.grad, before)


LAYOUTS = {
    "C order": lambda x: x.clone(),
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "units last in memory": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "gaps": lambda x: torch.stack([x, x], -1)[..., 0],
}


@pytest.mark.parametrize("of_weights", LAYOUTS)
@pytest.mark.parametrize("of_grads", LAYOUTS)
def test_layouts_in_memory_beside_each_other(of_grads, of_weights):
    shape = (5, 3, 2, 4)
    made = [param(LAYOUTS[of_grads](normal(*shape))), param(normal(7)), param(normal(4, 0)), param(normal(3, 3))]
    made[0].data = LAYOUTS[of_weights](normal(*shape, seed=1) * torch.logspace(-3, 3, 5)[:, None, None, None])
    want = [right(p, 0.1, 1e-3) for p in made]
    adaptive_grad_clip_(made, 0.1)
    for p, w in zip(made, want, strict=True):
        torch.testing.assert_close(p.grad.double(), w, rtol=1e-6, atol=1e-30)


def test_units_of_float64_far_apart_beside_narrower_ones():
    made = [param(torch.ones(3, 4, dtype=torch.float64)), param(normal(3, 4)), param(normal(6).bfloat16())]
    with torch.no_grad():
        made[0].grad *= torch.tensor([1e-200, 1.0, 1e200], dtype=torch.float64)[:, None]
        made[0][...] = torch.tensor([1e-170, 1e-300, 1e250], dtype=torch.float64)[:, None]
        made[1].fill_(0.1), made[2].fill_(0.1)
    adaptive_grad_clip_(made, 0.5, 1e-280)
    want = torch.tensor([1e-200, 5e-281 / 2, 1e200], dtype=torch.float64)[:, None].expand(3, 4)
    torch.testing.assert_close(made[0].grad, want, rtol=1e-14, atol=0)


def test_only_gradients_of_which_a_unit_changes_count_as_written():
    p, q = param(torch.ones(2, 2)), param(torch.ones(2, 2))
    with torch.no_grad():
        p.fill_(1.0), q[0].fill_(1.0), q[1].fill_(0.1)
    adaptive_grad_clip_([p, q], 1.0)
    assert p.grad._version == 0
    assert q.grad._version > 0
    torch.testing.assert_close(q.grad, torch.tensor([[1.0, 1.0], [0.1, 0.1]]))
