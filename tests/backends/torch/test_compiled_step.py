"""Under torch.compile, an optimizer's step has the clipping in its graph."""

import math
import warnings
from functools import partial
from itertools import cycle

import numpy as np
import pytest
import torch

from gradclip import policies
from gradclip.backends.torch import attach
from tests.backends.torch.helpers import normal, param

Muon = partial(torch.optim.Muon, lr=1.0, ns_steps=1)
"""An optimizer whose step is one graph, with few operations in it."""

THRESHOLDS = [1.0, torch.tensor(1.0), torch.tensor([1.0]), torch.tensor(1), np.float32(1), np.array(1.0)]


@pytest.mark.parametrize(
    ("limit", "per_group"), [*zip(THRESHOLDS, cycle([False, True]))], ids=lambda x: type(x).__name__
)
def test_a_compiled_step_has_clipping_in_its_graph(limit, per_group):
    torch.compiler.reset()
    params = [param(normal(4, 4, seed=i) * 50) for i in range(2)]
    optimizer = Muon([{"params": [p]} for p in params])
    clipping = attach(optimizer, limit, per_group=per_group)
    whole = not isinstance(limit, np.ndarray)  # of which the graph knows nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step = torch.compile(lambda: optimizer.step(), backend="aot_eager", fullgraph=whole)
        step()
        step()
    norms = [float(p.grad.norm()) for p in params] if per_group else [math.hypot(*(p.grad.norm() for p in params))]
    assert norms == pytest.approx([1.0] * len(norms))
    assert clipping.norm.reshape(-1).tolist() == pytest.approx(norms), "of the second step"
    assert clipping.coefficient.reshape(-1).tolist() == pytest.approx([1.0] * len(norms))
    clipping.max_norm = 0.5
    step()
    assert clipping.clipped.all()
    assert float(params[0].grad.norm()) < 0.51


POLICIES = [
    policies.Fixed(1.0), policies.Schedule(lambda step: 5.0 / (step + 1)), policies.ZClip(warmup_steps=3),
    policies.AutoClip(), policies.EmaClip(2.0), policies.QuantileClip(), policies.AdaGC(warmup_steps=2),
]  # fmt: skip


def thresholds(policy, compiled_steps, resumed_at=None, per_group=False, **key):
    """Return the norms and thresholds of 12 steps, of which some are compiled as one graph; step 4 has a NaN.

    The second param group has the other arguments as keys of its own.
    """
    torch.compiler.reset()
    params = [torch.nn.Parameter(torch.zeros(3, 4)) for _ in range(3)]
    optimizer = Muon([{"params": params[:1]}, {"params": params[1:]} | key])
    clipping = attach(optimizer, policy, per_group=per_group)
    compiled = torch.compile(lambda: optimizer.step(), backend="aot_eager", fullgraph=True)
    norms, limits = [], []
    for step in range(12):
        for i, p in enumerate(params):
            p.grad = normal(3, 4, seed=3 * step + i) * (50 if step == 8 else 1)
        if step == 4:
            params[0].grad[0, 0] = math.nan
        if step == resumed_at:
            states = clipping.state_dict()
            clipping = attach(optimizer, policy, per_group=per_group)
            clipping.load_state_dict(states)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # dynamo's own, of what it imports
            (compiled if step in compiled_steps else optimizer.step)()
        norms.append(clipping.norm.reshape(-1).tolist())
        limits.append(torch.as_tensor(clipping.threshold).reshape(-1).tolist())
    return norms, limits


PLACES = [{"per_group": True}, {"max_norm": 0.5}, {"clip": False}]


@pytest.mark.parametrize(
    ("policy", "options"),
    [*((p, {}) for p in POLICIES), *((p, x) for p in (POLICIES[2], POLICIES[-1]) for x in PLACES)],
)
def test_a_policy_is_in_the_graph(policy, options):
    wanted = thresholds(policy, (), **options)
    for found, expected in zip(thresholds(policy, range(12), **options), wanted, strict=True):
        np.testing.assert_allclose(np.array(found), np.array(expected), rtol=1e-5)


@pytest.mark.parametrize("policy", [POLICIES[2], POLICIES[3], POLICIES[-1]], ids=lambda x: type(x).__name__)
def test_compiled_steps_and_others_share_the_state(policy):
    """Steps are compiled, then not, then again, first by the handle that began and then by one that resumes from it."""
    alternating = [*range(3), *range(5, 7), *range(8, 10)]
    wanted = thresholds(policy, ())[1]
    np.testing.assert_allclose(thresholds(policy, alternating, resumed_at=6)[1], wanted, rtol=1e-5)


def test_a_saved_state_of_compiled_steps_is_plain_and_does_not_change():
    params = [param(normal(4, 4, seed=i)) for i in range(2)]
    optimizer = Muon(params)
    clipping = attach(optimizer, policies.ZClip())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step = torch.compile(lambda: optimizer.step(), backend="aot_eager", fullgraph=True)
        step()
        before = clipping.state_dict()
        step()
    assert all(type(x) is float for x in before["policies"]["all"].values())
    assert before["policies"]["all"]["count"] == 1
    assert clipping.state_dict()["policies"]["all"]["count"] == 2


def step_that_skips(p, *, fullgraph):
    """Return a compiled step whose policy skips norms above 2."""
    torch.compiler.reset()
    optimizer = torch.optim.Muon([p], lr=0.1)
    clipping = attach(optimizer, policies.SkipStep(threshold=2.0))
    return clipping, torch.compile(lambda: optimizer.step(), backend="aot_eager", fullgraph=fullgraph)


def test_a_step_that_is_skipped_lies_between_two_graphs():
    p = param(torch.full((2, 2), 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clipping, step = step_that_skips(p, fullgraph=False)
        seen = []
        for norm in (1.0, 10.0, 1.0):
            p.grad = torch.full((2, 2), norm / 2)
            before = p.detach().clone()
            step()
            seen.append((bool(clipping.skipped), torch.equal(p.detach(), before)))
    assert seen == [(False, False), (True, True), (False, False)]


def test_what_cannot_be_in_the_graph_says_so_with_fullgraph():
    _, step = step_that_skips(param(torch.full((2, 2), 0.5)), fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError, match="a policy that skips steps"):
            step()
