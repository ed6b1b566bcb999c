"""Schedule: the function gets the number of steps, whatever the norms were."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from gradclip.policies import Schedule
from tests.policies.frameworks import RUNS, assert_same, run_floats, run_scan
from tests.policies.recorded import spoiled


def decay(step):
    return 3.0 - step / 64


@pytest.mark.parametrize("run", [run_floats, *(RUNS[name] for name in ("numpy", "torch", "torch-float32"))])
def test_the_function_of_the_step(run):
    assert_same(run, Schedule(decay), spoiled(), [max(0, decay(i)) for i in range(len(spoiled()))])


def test_a_schedule_of_optax_in_a_compiled_loop():
    schedule = optax.linear_schedule(4.0, 1.0, 50)
    expected = [4 - 3 * min(1, i / 50) for i in range(len(spoiled()))]
    assert_same(run_scan, Schedule(schedule), spoiled(), expected)
    assert_same(run_floats, Schedule(schedule), spoiled(), expected)


def test_a_negative_threshold_is_zero_and_other_kinds_of_numbers_are_taken():
    for norm, value in [
        (1.0, -2.0),
        (np.ones(()), np.float32(-2)),
        (torch.ones(()), -2),
        (jnp.ones(()), jnp.asarray(-2)),
    ]:
        policy = Schedule(lambda step, value=value: value)
        max_norm, state = policy.update(policy.init(norm), norm)
        assert float(max_norm) == 0
        assert type(max_norm) is type(norm) or isinstance(norm, np.ndarray)
        assert int(state.step) == 1


def test_every_step_counts():
    policy = Schedule(lambda step: step)
    assert run_floats(policy, [1.0, math.nan, math.inf, 0.0]).tolist() == [0, 1, 2, 3]


def test_arguments():
    with pytest.raises(TypeError, match=r"schedule is a float, expected a function from the step to max_norm; for a"):
        Schedule(1.0)
