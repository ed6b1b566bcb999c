"""States are saved and restored: ours, and those that were saved with optax's clipping, which are empty."""

import warnings

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradclip.backends import optax as ours

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


def upgraded(tx, params, saved):
    """The recipe of docs/jax.md."""

    def is_ours(state):
        return isinstance(state, ours.ClipState)

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
