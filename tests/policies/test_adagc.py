"""AdaGC, against its formula and against pytorch_optimizer."""

import math

import numpy as np
import pytest

from gradclip.policies import AdaGC
from tests.policies.frameworks import assert_same, in_each, run_steps
from tests.policies.recorded import recorded, spoiled_leaves


def reference(rows, lambda_rel=1.05, beta=0.98, warmup_steps=100, lambda_abs=1.0, running_min="after"):
    """arXiv:2502.11034, algorithm 1, in Python's floats; every leaf counts its own norms."""
    count, gamma, thresholds = [0] * len(rows[0]), [math.inf] * len(rows[0]), []
    for row in rows:
        usable = [0 < n < math.inf for n in row]
        whole = math.hypot(*(n for n, use in zip(row, usable, strict=True) if use))
        thresholds.append([])
        for i, n in enumerate(row):
            warm = count[i] < warmup_steps
            limit = (n * min(1, lambda_abs / whole) if usable[i] else lambda_abs) if warm else lambda_rel * gamma[i]
            thresholds[-1].append(limit)
            if not usable[i]:
                continue
            clipped = min(n, limit)
            if warm:
                gamma[i] = min(gamma[i], clipped if running_min == "after" else n)
                count[i] += 1
            else:
                gamma[i] = beta * gamma[i] + (1 - beta) * clipped
    return thresholds


CASES = {
    "defaults": {},
    "before": {"running_min": "before", "warmup_steps": 30},
    "of Paddle": {"lambda_rel": 1.03, "beta": 0.98, "running_min": "before", "warmup_steps": 10},
    "no clipping in the warm-up": {"lambda_abs": math.inf, "warmup_steps": 5},
    "one step": {"warmup_steps": 1, "lambda_rel": 1.5},
}


@in_each
@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES.keys())
def test_the_formula(arguments, run):
    assert_same(run, AdaGC(**arguments), spoiled_leaves(), reference(spoiled_leaves(), **arguments))


@in_each
def test_norms_near_the_largest_number_of_float32(run):
    rows = np.float64(np.float32(recorded() * (3e38 / recorded().max()))).tolist()
    arguments = {"warmup_steps": 20, "lambda_abs": 1e38}
    assert_same(run, AdaGC(**arguments), rows, reference(rows, **arguments))


def test_a_tensor_whose_gradient_was_once_zero_learns_again():
    rows = [[0.0, 1.0]] * 3 + [[1.0, 1.0]] * 6
    thresholds = run_steps(AdaGC(warmup_steps=2, lambda_abs=10.0), rows, np.asarray)
    assert thresholds[-1] == pytest.approx([1.05, 1.05])


def test_pytorch_optimizer():
    """Its warm-up is a step shorter than the number says. Norms of 0, which enter its mean, are left out."""
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("pytorch_optimizer", reason="pip install --no-deps pytorch_optimizer")
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    theirs = peer.AdaGC(params, warmup_steps=21, weight_decay=0.0, foreach=False)
    mine = AdaGC(warmup_steps=20)
    state = mine.init(np.zeros(3))
    for row in recorded()[recorded().min(axis=1) > 0]:
        for p, n in zip(params, row.tolist(), strict=True):
            p.grad = torch.tensor([n])
        theirs.step()
        _, state = mine.update(state, row)
        gamma = [float(theirs.state[p]["gamma"]) for p in params]
        np.testing.assert_allclose(state.gamma, gamma, rtol=5e-6)  # theirs adds up in float32


def test_pytorch_optimizer_never_learns_again_after_a_nan():
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("pytorch_optimizer", reason="pip install --no-deps pytorch_optimizer")
    param = torch.nn.Parameter(torch.zeros(1))
    theirs, mine = peer.AdaGC([param], warmup_steps=3, foreach=False), AdaGC(warmup_steps=3)
    state = mine.init(np.zeros(1))
    for n in [1.0, 1.0, 1.0, math.nan, 1.0, 1.0]:
        param.grad = torch.tensor([n])
        theirs.step()
        max_norm, state = mine.update(state, np.asarray([n]))
    assert math.isnan(theirs.state[param]["gamma"])
    assert max_norm == pytest.approx([1.05])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lambda_rel": 0.0}, "lambda_rel=0.0, expected a finite number > 0"),
        ({"lambda_abs": -1}, "lambda_abs=-1, expected a finite number > 0"),
        ({"beta": 1.0}, "beta=1.0, expected a finite number > 0 and < 1; pass beta=0.98"),
        ({"warmup_steps": 0}, "warmup_steps=0, expected an integer >= 1"),
        ({"running_min": "both"}, "running_min='both', expected one of 'after', 'before'"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdaGC(**arguments)
