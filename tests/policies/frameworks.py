"""One sequence of norms through a policy in each framework: thresholds as float64, step by step."""

from collections.abc import Callable, Sequence
from typing import Any

import array_api_strict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from gradclip.policies import Policy

Run = Callable[[Policy[Any], Sequence[Any]], np.ndarray]


def run_steps(policy: Policy[Any], norms: Sequence[Any], convert: Callable[[Any], Any]) -> np.ndarray:
    """Return the threshold of each step, in a Python loop. All but floats may warn of what a host ignores."""
    state, thresholds = policy.init(convert(norms[0])), []
    with np.errstate(all="ignore"):
        for norm in norms:
            max_norm, state = policy.update(state, convert(norm))
            thresholds.append(np.asarray(max_norm, np.float64))
    return np.asarray(thresholds)


def run_floats(policy: Policy[Any], norms: Sequence[Any]) -> np.ndarray:
    return run_steps(policy, norms, float)


def run_scan(policy: Policy[Any], norms: Sequence[Any]) -> np.ndarray:
    """Return the threshold of each step, in one compiled loop of JAX's."""

    def step(state: Any, norm: Any) -> Any:
        max_norm, state = policy.update(state, norm)
        return state, max_norm

    inputs = jnp.asarray(norms, jnp.float32)
    _, thresholds = jax.jit(lambda xs: jax.lax.scan(step, policy.init(xs[0]), xs))(inputs)
    return np.asarray(thresholds, np.float64)


RUNS: dict[str, Run] = {
    "numpy": lambda policy, norms: run_steps(policy, norms, np.asarray),
    "numpy-float32": lambda policy, norms: run_steps(policy, norms, lambda x: np.asarray(x, np.float32)),
    "torch": lambda policy, norms: run_steps(policy, norms, lambda x: torch.tensor(x, dtype=torch.float64)),
    "torch-float32": lambda policy, norms: run_steps(policy, norms, torch.tensor),
    "jax.lax.scan": run_scan,
    "array-api-strict": lambda policy, norms: run_steps(policy, norms, array_api_strict.asarray),
}

in_each = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
with_floats = pytest.mark.parametrize("run", [run_floats, *RUNS.values()], ids=["floats", *RUNS.keys()])
"""For policies of one norm: Python's floats too."""


def assert_same(run: Run, policy: Policy[Any], norms: Sequence[Any], expected: Sequence[Any]) -> None:
    """Check the thresholds of all steps to 1e-6."""
    np.testing.assert_allclose(run(policy, norms), np.asarray(expected, np.float64), rtol=1e-6)
