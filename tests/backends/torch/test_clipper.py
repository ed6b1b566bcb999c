"""Clipper for PyTorch: parameters, modules and optimizers in place, containers of tensors else."""

import pickle

import pytest
import torch

import gradclip
from gradclip.backends.torch import Clipper, global_norm
from gradclip.policies import AdaGC, SkipStep, ZClip
from tests.policies.recorded import norms


def model_with(norm):
    model = torch.nn.Linear(3, 2)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    size = float(global_norm(model))
    for p in model.parameters():
        p.grad *= norm / size
    return model


@pytest.mark.parametrize(
    "of", [lambda m: m, lambda m: list(m.parameters()), lambda m: torch.optim.SGD(m.parameters(), 0.1)]
)
def test_what_it_takes_in_place(of):
    clipper, core = (
        Clipper(ZClip(warmup_steps=5, max_norm=None)),
        gradclip.Clipper(ZClip(warmup_steps=5, max_norm=None)),
    )
    for norm in norms()[:45]:
        model = model_with(norm)
        before = [p.grad.clone() for p in model.parameters()]
        clipped, _ = core(before)
        assert float(clipper.clip_(of(model))) == pytest.approx(norm, rel=1e-6)
        assert clipper.max_norm == pytest.approx(core.max_norm, rel=1e-6)
        for p, expected in zip(model.parameters(), clipped, strict=True):
            torch.testing.assert_close(p.grad, expected, rtol=1e-6, atol=0)


def test_pure_and_each_leaf():
    clipper = Clipper(AdaGC(warmup_steps=1))
    grads = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.6])}
    clipper(grads)
    clipped, _ = clipper(grads)
    assert float(clipped["a"].norm()) == pytest.approx(float(clipper.max_norm[0]), rel=1e-6)
    assert torch.equal(grads["a"], torch.tensor([3.0, 4.0]))


def test_a_state_is_saved_with_weights_only(tmp_path):
    for policy in (ZClip(), AdaGC(), SkipStep()):
        clipper = Clipper(policy)
        clipper.clip_(model_with(2.0))
        torch.save(clipper.state_dict(), tmp_path / "state.pt")
        resumed = Clipper(policy)
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        resumed.clip_(model_with(3.0))
        clone = pickle.loads(pickle.dumps(clipper))
        _ = clone.skipped, clipper.skipped
        clone.clip_(model_with(3.0))
        assert str(resumed.state) == str(clone.state)


def test_a_plain_loop_leaves_out_the_steps_to_skip():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    clipper, seen = Clipper(SkipStep(1.0)), []
    for gradient in [0.5, 8.0, torch.nan, 0.5]:
        weight.grad = torch.tensor([gradient, 0.0])
        clipper.clip_(weight)
        if not clipper.skipped:
            optimizer.step()
        seen.append(float(weight.detach()[0]))
    assert seen == pytest.approx([0.95, 0.95, 0.95, 0.855])
