"""Clipping of spikes by the second moments in an optimizer's state."""

import pytest
import torch

from gradclip.backends.torch import clip_spikes, clip_spikes_


def stepped(cls, **arguments):
    params = [
        torch.nn.Parameter(torch.zeros(40, 30)),
        torch.nn.Parameter(torch.zeros(3)),
        torch.nn.Parameter(torch.zeros(2)),
    ]
    optimizer = cls(params, lr=0.1, **arguments)
    for p in params[:2]:
        p.grad = torch.full_like(p, 0.1)
    clip_spikes_(optimizer)  # there is no state yet
    optimizer.step()
    return params, optimizer


@pytest.mark.parametrize("cls", [torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam])
def test_it_reads_the_moments_of_the_optimizer(cls):
    params, optimizer = stepped(cls)
    torch.manual_seed(0)
    grads = [torch.randn(p.shape) for p in params]
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    clip_spikes_(optimizer, 100.0)
    moments = [optimizer.state[p]["exp_avg_sq"] for p in params[:2]]
    for p, g, v in zip(params, grads, moments, strict=False):
        bound = (100 * v).sqrt()
        torch.testing.assert_close(p.grad, g.clamp(-bound, bound), rtol=1e-6, atol=0)
        torch.testing.assert_close(clip_spikes([g], [v], 100.0)[0], p.grad, rtol=0, atol=0)
        assert (p.grad != g).any()
    assert torch.equal(params[2].grad, grads[2])  # it had no step


def test_arguments():
    params, optimizer = stepped(torch.optim.Adam)
    with pytest.raises(TypeError, match=r"optimizer is a list, expected a torch.optim.Optimizer; for gradients and"):
        clip_spikes_(params)
    with pytest.raises(ValueError, match="threshold=-1"):
        clip_spikes_(optimizer, -1)
    _, other = stepped(torch.optim.SGD, momentum=0.9)
    with pytest.raises(ValueError, match="SGD keeps no exp_avg_sq, expected an optimizer of Adam's kind"):
        clip_spikes_(other)
    params[0].grad = torch.zeros(40, 30).to_sparse()
    with pytest.raises(TypeError, match=r"a gradient has layout torch.sparse_coo, expected dense gradients"):
        clip_spikes_(optimizer)
