"""States are saved and restored: ours, and those that were saved with optax's clipping, which are empty."""

import pickle
import warnings

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradclip.backends import optax as ours
from gradclip.policies import AdaGC, SkipStep, ZClip
from tests.backends.optax.policies import POLICIES, at, gradients, inputs, scanned, transformation

GRADS = {"w": jnp.asarray([[3.0, -1.5], [0.25, 8.0]]), "b": jnp.asarray([-4.0, 0.0, 0.5])}
PARAMS = {"w": jnp.asarray([[1.0, 2.0], [0.5, -1.0]]), "b": jnp.asarray([0.1, 0.0, 3.0])}
PLACES = {
    "chain": lambda lib: optax.chain(lib.clip_by_global_norm(1.0), optax.adam(1e-2)),
    "several": lambda lib: optax.chain(lib.clip(1.0), lib.adaptive_grad_clip(0.1), lib.clip_by_block_rms(1.0)),
    "masked": lambda lib: optax.masked(lib.clip_by_block_rms(0.5), {"w": True, "b": False}),
    "multi_transform": lambda lib: optax.multi_transform(
        {"clip": optax.chain(lib.clip_by_global_norm(1.0), optax.sgd(0.1)), "none": optax.identity()},
        {"w": "clip", "b": "none"},
    ),
    "MultiSteps": lambda lib: optax.MultiSteps(optax.chain(lib.clip_by_global_norm(1.0), optax.adam(0.1)), 2),
    "apply_if_finite": lambda lib: optax.apply_if_finite(lib.adaptive_grad_clip(0.1), 2),
    "inject_hyperparams": lambda lib: optax.inject_hyperparams(lib.clip_by_global_norm)(max_norm=1.0),
}


def by_flax(state, like, path):  # it needs no file
    return flax.serialization.from_bytes(like, flax.serialization.to_bytes(state))


def by_orbax(state, like, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # orbax's own
        import orbax.checkpoint as ocp

        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path / "state", state)
            checkpointer.wait_until_finished()
            return checkpointer.restore(path / "state", like)


def by_pickle(state, like, path):
    return pickle.loads(pickle.dumps(state))


def upgraded(tx, params, saved):
    """The recipe of docs/jax.md."""

    def is_ours(state):
        return isinstance(state, ours.ClipState | ours.PolicyState)

    return jax.tree.map(lambda new, old: new if is_ours(new) else old, tx.init(params), saved, is_leaf=is_ours)


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype


@pytest.mark.parametrize("restore", [by_flax, by_orbax])
def test_the_state_is_restored(restore, tmp_path):
    tx = PLACES["several"](ours)
    state = tx.update(GRADS, tx.init(PARAMS), PARAMS)[1]
    restored = restore(state, tx.init(PARAMS), tmp_path)
    assert isinstance(restored[1], ours.ClipState)
    same(restored, state)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("restore", [by_flax, by_orbax])
def test_a_state_that_was_saved_with_optax_s_clipping(place, restore, tmp_path):
    """The recipe puts fresh states of ours in place of optax's empty ones, and keeps all others."""
    theirs, tx = PLACES[place](optax), PLACES[place](ours)
    state = theirs.init(PARAMS)
    for _ in range(3):
        state = theirs.update(GRADS, state, PARAMS)[1]
    saved = restore(state, theirs.init(PARAMS), tmp_path)
    begun = upgraded(tx, PARAMS, saved)
    assert jax.tree.structure(begun) == jax.tree.structure(tx.init(PARAMS))
    updates, after = jax.jit(tx.update)(GRADS, begun, PARAMS)
    assert jax.tree.structure(after) == jax.tree.structure(begun)
    for got, want in zip(*map(jax.tree.leaves, (updates, theirs.update(GRADS, state, PARAMS)[0])), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-6)


@pytest.mark.parametrize("place", [place for place in PLACES if place not in ("MultiSteps", "apply_if_finite")])
def test_where_the_structure_may_change_it_can_be_given_as_it_is(place):
    theirs, tx = PLACES[place](optax), PLACES[place](ours)
    saved = theirs.update(GRADS, theirs.init(PARAMS), PARAMS)[1]
    for update in (tx.update, jax.jit(tx.update)):
        same(update(GRADS, saved, PARAMS), update(GRADS, upgraded(tx, PARAMS, saved), PARAMS))


def assert_resumed(policy, restore, steps, path):
    """Check that runs restored before these steps take the same steps as one that went on."""
    grads, tx = gradients(inputs(policy)), transformation(policy)
    states = jax.jit(lambda steps: scanned(policy, steps))(grads)
    like = tx.init(at(grads, 0))
    step = jax.jit(tx.update)
    for i in steps:
        before = at(states, i - 1) if i else like
        restored = restore(before, like, path / str(i))
        same(restored, before)
        for got, want in zip(*map(jax.tree.leaves, (step(at(grads, i), restored)[1], at(states, i))), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6)  # a loop and a step are compiled differently
        same(step(at(grads, i), restored), step(at(grads, i), before))


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("restore", [by_flax, by_pickle])
def test_a_run_resumed_at_any_step_takes_the_same_thresholds(policy, restore, tmp_path):
    assert_resumed(policy, restore, range(60), tmp_path)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_a_run_resumed_by_orbax(policy, tmp_path):
    assert_resumed(policy, by_orbax, (0, 1, 25), tmp_path)


@pytest.mark.parametrize("restore", [by_flax, by_orbax, by_pickle])
def test_a_training_run_with_policies_goes_on_as_it_would_have(restore, tmp_path):
    clip, skip = ours.clip_by_global_norm(AdaGC(warmup_steps=2)), SkipStep(sigma=3, window=4)
    tx = ours.skip_steps(optax.chain(clip, optax.adamw(0.1)), skip)

    @jax.jit
    def step(params, state, size):
        updates, state = tx.update(jax.tree.map(lambda g: g * size, GRADS), state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for size in (1.0, 1.1, jnp.nan, 0.9, 50.0):
        params, state = step(params, state, size)
    saved = restore((params, state), (PARAMS, tx.init(PARAMS)), tmp_path)
    same(saved, (params, state))
    for size in (1.0, 0.8, jnp.inf, 40.0, 1.1):
        saved, (params, state) = step(*saved, size), step(params, state, size)
        same(saved, (params, state))
    assert int(state.skipped) >= 3


@pytest.mark.parametrize("lib", [optax, ours])
def test_a_checkpoint_of_a_number_s_goes_on_with_a_policy(lib):
    """With optax's clipping, or ours: the recipe puts the policy's first state in, and keeps all others."""
    theirs = optax.chain(lib.clip_by_global_norm(1.0), optax.adam(1e-2))
    tx = optax.chain(ours.clip_by_global_norm(ZClip()), optax.adam(1e-2))
    saved = theirs.update(GRADS, theirs.init(PARAMS), PARAMS)[1]
    _, after = jax.jit(tx.update)(GRADS, upgraded(tx, PARAMS, saved), PARAMS)
    assert (int(after[0].step), int(after[1][0].count)) == (1, 2)
    wrapped = ours.skip_steps(theirs, SkipStep(threshold=25.0))
    _, after = jax.jit(wrapped.update)(GRADS, wrapped.init(PARAMS)._replace(inner_state=saved), PARAMS)
    assert (int(after.step), int(after.inner_state[1][0].count)) == (1, 2)
