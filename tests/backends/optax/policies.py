"""Policies, gradients with recorded norms, and transformations that show the thresholds of each step."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradclip.backends import optax as ours
from gradclip.policies import AdaGC, AutoClip, EmaClip, Fixed, QuantileClip, Schedule, SkipStep, ZClip
from tests.policies.recorded import norms, recorded


@dataclass(frozen=True)
class Falling:
    """A schedule of which ``repr`` has no address, so that tests have the same names in each process."""

    start: float

    def __call__(self, step):
        return self.start / (1 + step)


POLICIES = [
    Fixed(1.0),
    Schedule(Falling(3.0)),
    AutoClip(window=40),
    ZClip(max_norm=None, warmup_steps=10),
    ZClip(max_norm=None, warmup_steps=10, skip_update_on_spike=True, option="percentile"),
    QuantileClip(),
    EmaClip(1.1),
    AdaGC(warmup_steps=10),
    AdaGC(warmup_steps=10, running_min="before"),
    SkipStep(1.0),
    SkipStep(sigma=3, window=16),
    SkipStep(sigma=3, window=16, rule="llm.c"),
]
STEPS = 70


def transformation(policy, **options):
    """Return what shows a policy's thresholds in its state as ``max_norm``."""
    if policy.skips:
        return ours.skip_steps(optax.identity(), policy, **options)
    return ours.clip_by_global_norm(policy, **options)


def inputs(policy):
    """Return recorded norms: of shape (steps, 3) for a policy that clips each leaf, else of shape (steps,)."""
    return recorded()[:STEPS] if policy.per_leaf else np.asarray(norms()[:STEPS])


def gradients(values):
    """Return gradients of these norms for all steps, the leading axis: one leaf of one element for each norm."""
    values = jnp.asarray(values, jnp.float32)
    return [values[..., i, None] for i in range(values.shape[-1])] if values.ndim > 1 else [values[..., None]]


def at(steps, i):
    """Return the gradients of one step."""
    return jax.tree.map(lambda x: x[i], steps)


def scanned(policy, steps):
    """Return the states after each step, stacked, from one compiled loop."""
    tx = transformation(policy)

    def step(state, grads):
        state = tx.update(grads, state)[1]
        return state, state

    return jax.lax.scan(step, tx.init(at(steps, 0)), steps)[1]
