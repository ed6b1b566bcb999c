"""Derivatives through the core, where the framework records them while it calculates: torch's."""

import pytest
import torch

import gradclip

CLIPS = {
    "clip_by_global_norm": lambda g, t: gradclip.clip_by_global_norm(g, t)[0],
    "clip_by_norm": gradclip.clip_by_norm,
    "clip_by_rms": lambda g, t: gradclip.clip_by_rms(g, t / 3),
    "clip_by_value": lambda g, t: gradclip.clip_by_value(g, t / 2),
    "adaptive_grad_clip": lambda g, t: gradclip.adaptive_grad_clip(g, torch.ones_like(g), t / 3),
    "clip_with_norm": lambda g, t: gradclip.clip_with_norm(g, 0.5, t + 1),
    "clip_per_example": lambda g, t: gradclip.clip_per_example(g[None, :], t)[0],
}


def values(*shape: int) -> torch.Tensor:
    return torch.linspace(-1, 2, *shape, dtype=torch.float64)


@pytest.mark.parametrize("function", CLIPS)
def test_thresholds_and_gradients_have_derivatives_equal_to_finite_differences(function):
    threshold = torch.tensor(0.75, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(CLIPS[function], (values(5).requires_grad_(), threshold))
    assert torch.autograd.gradgradcheck(CLIPS[function], (values(5).requires_grad_(), threshold))


def test_a_threshold_whose_derivative_is_recorded_is_checked_all_the_same():
    with pytest.raises(ValueError, match="max_norm=tensor"):
        gradclip.clip_by_global_norm(values(5), torch.tensor(-1.0, requires_grad=True))
    with pytest.raises(ValueError, match="is above max_value=tensor"):
        gradclip.clip_by_value(values(5), torch.tensor(-1.0, requires_grad=True), min_value=0.0)


@pytest.mark.parametrize("clip", [CLIPS["clip_by_global_norm"], CLIPS["clip_by_norm"]])
def test_a_large_leaf_is_recorded_as_a_whole(clip):
    leaf = values(200_000).requires_grad_()
    clipped = clip(leaf, 1.0)
    clipped.sum().backward()
    norm = torch.linalg.vector_norm(leaf.detach())
    direction = leaf.detach() / norm
    torch.testing.assert_close(leaf.grad, (1 - direction.sum() * direction) / norm)
    nodes, pending = set(), [clipped.grad_fn]
    while pending:
        node = pending.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            pending += [before for before, _ in node.next_functions]
    assert len(nodes) < 60, "not a node for each chunk"


def test_nothing_is_recorded_where_that_is_switched_off():
    leaf = values(5).requires_grad_()
    with torch.no_grad():
        clipped, norm = gradclip.clip_by_global_norm(leaf, torch.tensor(1.0, requires_grad=True))
    assert not clipped.requires_grad
    assert not norm.requires_grad
