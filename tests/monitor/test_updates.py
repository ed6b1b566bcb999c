"""`Updates`: the norm of what a step adds to parameters."""

import pytest

torch = pytest.importorskip("torch")
from gradclip.backends.torch import attach  # noqa: E402
from gradclip.monitor import NormMonitor  # noqa: E402


def parameters():
    torch.manual_seed(0)
    found = [
        torch.nn.Parameter(torch.randn(3, 2)),
        torch.nn.Parameter(torch.randn(4)),
        torch.nn.Parameter(torch.ones(1)),
    ]
    for p in found[:2]:
        p.grad = torch.randn_like(p)
    return found


def test_it_is_the_norm_of_the_change():
    params = parameters()
    optimizer = torch.optim.AdamW(params, lr=0.1)
    monitor = NormMonitor(attach(optimizer, 0.5), updates=optimizer, fetch_every=2)
    wanted = []
    for _ in range(5):
        before = [p.detach().clone() for p in params]
        optimizer.step()
        changes = [(p.detach() - b).flatten() for p, b in zip(params, before, strict=True)]
        wanted.append(float(torch.cat(changes).double().norm()))
    assert monitor.history().update_norm.tolist() == pytest.approx(wanted, rel=1e-6)
    assert monitor.last()["update_norm"] == pytest.approx(wanted[-1], rel=1e-6)


def test_something_else_than_an_optimizer_is_refused():
    handle = attach(torch.optim.SGD(parameters(), lr=0.1), 1.0)
    with pytest.raises(TypeError, match=r"updates is a str, expected a torch.optim.Optimizer"):
        NormMonitor(handle, updates="adam")
    assert handle.observers == []
