"""EmaClip, against the rule of OLMo."""

import math

import numpy as np
import pytest

from gradclip.policies import EmaClip
from tests.policies.frameworks import assert_same, in_each, run_steps
from tests.policies.recorded import recorded, spoiled_leaves


def reference(rows, ratio, beta=0.95):
    """``_do_adaptive_clipping`` in ``olmo/optim.py``, with a mean that starts at the first norm."""
    means, thresholds = [0.0] * len(rows[0]), []
    for row in rows:
        thresholds.append([])
        for i, n in enumerate(row):
            usable = 0 < n < math.inf
            means[i] = n if usable and means[i] == 0 else means[i]
            limit = ratio * means[i] if means[i] else math.inf
            thresholds[-1].append(limit)
            if usable:
                means[i] = beta * means[i] + (1 - beta) * min(n, limit)
    return thresholds


@in_each
@pytest.mark.parametrize(("ratio", "beta"), [(1.1, 0.95), (2.0, 0.5), (0.9, 0.99)])
def test_the_rule(ratio, beta, run):
    assert_same(run, EmaClip(ratio, beta), spoiled_leaves(), reference(spoiled_leaves(), ratio, beta))


@in_each
def test_norms_near_the_largest_number_of_float32(run):
    rows = np.float64(np.float32(recorded() * (1e38 / recorded().max()))).tolist()
    assert_same(run, EmaClip(1.5), rows, reference(rows, 1.5))


def test_an_expert_without_tokens_for_long_learns_again():
    """In OLMo, a thousand zeros make the mean so small that the next gradients are clipped to nearly 0."""
    rows = [[1.0]] + [[0.0]] * 1000 + [[1.0]]
    assert run_steps(EmaClip(1.1), rows, np.asarray)[-1] == pytest.approx([1.1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), "ratio=0.0, expected a finite number > 0"),
        ((1.1, 0.0), "beta=0.0, expected a finite number > 0 and < 1"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        EmaClip(*arguments)
