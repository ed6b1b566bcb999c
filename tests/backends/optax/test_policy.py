"""Policies as ``max_norm``: the thresholds of NumPy and PyTorch, in every place and transformation."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradclip
from gradclip.backends import jax as gj
from gradclip.backends import optax as ours
from gradclip.policies import AdaGC, AutoClip, EmaClip, Fixed, Schedule, SkipStep, ZClip
from tests.backends.optax.policies import POLICIES, STEPS, gradients, inputs, scanned, transformation
from tests.policies.frameworks import RUNS, run_floats
from tests.policies.recorded import recorded, spoiled, spoiled_leaves

each = pytest.mark.parametrize("policy", POLICIES, ids=repr)
CLIPPING = [policy for policy in POLICIES if not policy.skips]
each_that_clips = pytest.mark.parametrize("policy", CLIPPING, ids=repr)
GRADS = {"w": jnp.asarray([[3.0, -1.5], [0.25, 8.0]]), "b": jnp.asarray([-4.0, 0.0, 0.5])}
PARAMS = {"w": jnp.asarray([[1.0, 2.0], [0.5, -1.0]]), "b": jnp.asarray([0.1, 0.0, 3.0])}


@each
def test_the_thresholds_are_those_of_numpy_and_pytorch(policy):
    values = spoiled_leaves() if policy.per_leaf else spoiled()
    states = jax.jit(lambda steps: scanned(policy, steps))(gradients(values))
    for run in (RUNS["numpy"], RUNS["torch"]):
        np.testing.assert_allclose(states.max_norm, run(policy, values), rtol=1e-6)
    np.testing.assert_array_equal(states.step, np.arange(len(values)) + 1)
    assert len(np.unique(states.max_norm)) > 1 or policy in (Fixed(1.0), SkipStep(1.0))


@each
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_at_any_step(policy, bad):
    """They leave no trace in the thresholds of later steps, and have thresholds themselves."""
    values = inputs(policy)
    rows = np.stack([np.insert(values, i, bad, axis=0) for i in range(STEPS + 1)])
    states = jax.jit(jax.vmap(lambda row: scanned(policy, gradients(row))))(jnp.asarray(rows, jnp.float32))
    run = RUNS["numpy"] if policy.per_leaf else run_floats
    for row, found in zip(rows, states.max_norm, strict=True):
        np.testing.assert_allclose(found, run(policy, row), rtol=1e-6)
    assert all(np.isfinite(x).any(axis=1).all() or x.dtype == np.int32 for x in jax.tree.leaves(states.policy))
    assert not any(np.isnan(x).any() for x in jax.tree.leaves(states.policy))


@each_that_clips
@pytest.mark.parametrize("jit", [False, True])
def test_updates_are_those_of_a_clipper(policy, jit):
    """`Clipper` clips NumPy's arrays; leaves have several elements, and some are NaN or inf."""
    tx, clipper = ours.clip_by_global_norm(policy), gradclip.Clipper(policy)
    update = jax.jit(tx.update) if jit else tx.update
    rows = [*recorded()[:25], [np.nan, 1.0, 2.0], [1.0, np.inf, 0.0], *recorded()[25 : STEPS if jit else 30]]
    state, clipped = None, 0
    for row in rows:
        grads = {str(i): np.float32([norm, -norm, 0.5 * norm]) for i, norm in enumerate(row)}
        params = jax.tree.map(jnp.asarray, grads)
        updates, state = update(params, tx.init(params) if state is None else state)
        with np.errstate(all="ignore"):
            expected, norm = clipper(grads)
        clipped += bool(clipper.clipped)
        np.testing.assert_allclose(state.norm, norm, rtol=1e-6)
        np.testing.assert_allclose(state.max_norm, clipper.max_norm, rtol=1e-6)
        np.testing.assert_allclose(state.coefficient, np.min(clipper.coefficient), rtol=2e-6)
        assert int(state.clipped) == clipped
        for name, value in updates.items():
            np.testing.assert_allclose(value, expected[name], rtol=2e-6)
    assert clipped > 0


def test_bad_updates_can_become_zero():
    tx = ours.clip_by_global_norm(ZClip(), nonfinite="zero")
    updates, state = jax.jit(tx.update)({**GRADS, "b": jnp.asarray([jnp.nan, 1.0, 1.0])}, tx.init(PARAMS))
    assert not any(x.any() for x in jax.tree.leaves(updates))
    assert jnp.isnan(state.norm)
    assert (float(state.coefficient), int(state.clipped), float(state.policy.count)) == (0.0, 1, 0.0)
    tx = ours.clip_by_global_norm(ZClip(), nonfinite="error")
    with pytest.raises(gradclip.NonFiniteError, match=r"updates\['b'\]"):
        tx.update({**GRADS, "b": jnp.asarray([jnp.nan, 1.0, 1.0])}, tx.init(PARAMS))


CHAINS = {
    "chain": lambda clip: optax.chain(clip, optax.sgd(1e-2, momentum=0.9)),
    "masked": lambda clip: optax.masked(clip, {"w": True, "b": False}),
    "multi_transform": lambda clip: optax.multi_transform(
        {"clip": clip, "none": optax.identity()}, {"w": "clip", "b": "none"}
    ),
    "MultiSteps": lambda clip: optax.MultiSteps(optax.chain(clip, optax.sgd(0.1)), 2).gradient_transformation(),
    "apply_if_finite": lambda clip: optax.apply_if_finite(clip, 2),
    "inject_hyperparams": lambda clip: optax.inject_hyperparams(lambda rate: optax.chain(clip, optax.sgd(rate)))(0.1),
    "flatten": lambda clip: optax.flatten(clip),
}


@pytest.mark.parametrize("place", CHAINS)
@pytest.mark.parametrize("policy", [ZClip(warmup_steps=2), AdaGC(warmup_steps=2), AutoClip(window=3)], ids=repr)
def test_in_every_place_the_state_keeps_its_types_and_can_be_donated(policy, place):
    tx = CHAINS[place](ours.clip_by_global_norm(policy))
    state = tx.init(PARAMS)
    types = jax.tree.map(jax.typeof, state)
    step = jax.jit(tx.update, donate_argnums=(0, 1))
    for size in (1.0, 0.01, 5.0, 1.0):
        _, state = step(jax.tree.map(lambda g, size=size: g * size, GRADS), state, PARAMS)
        assert jax.tree.map(jax.typeof, state) == types
    assert optax.tree_utils.tree_get(state, "max_norm").dtype == jnp.float32

    def total(grads):
        return gj.global_norm(tx.update(grads, state, PARAMS)[0])

    assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.jit(jax.grad(total))(GRADS)))


def test_a_policy_is_passed_through_inject_hyperparams():
    tx = optax.inject_hyperparams(ours.clip_by_global_norm)(max_norm=EmaClip(1.1))
    state = tx.init(PARAMS)
    for _ in range(2):
        _, state = jax.jit(tx.update)(GRADS, state)
    assert state.inner_state.max_norm.shape == (2,)
    assert state.hyperparams == {}


@pytest.mark.parametrize("policy", [ZClip(warmup_steps=2, max_norm=None), EmaClip(0.7)], ids=repr)
def test_derivatives_pass_through_norm_and_threshold(policy):
    tx = ours.clip_by_global_norm(policy)
    state = tx.init(PARAMS)
    for size in (0.1, 0.12, 0.11):
        _, state = tx.update(jax.tree.map(lambda g, size=size: g * size, GRADS), state)
    weights = jax.tree.map(lambda g: jnp.cos(g), GRADS)

    def by_transformation(grads):
        return optax.tree_utils.tree_vdot(tx.update(grads, state)[0], weights)

    def by_hand(grads):
        if policy.per_leaf:
            limits, _ = policy.update(state.policy, jnp.stack(jax.tree.leaves(gj.leaf_norms(grads))))
            limits = dict(zip(sorted(grads), limits, strict=True))
            clipped = {name: gj.clip_by_norm(g, limits[name]) for name, g in grads.items()}
        else:
            clipped, _ = gj.clip_by_global_norm(grads, policy.update(state.policy, gj.global_norm(grads))[0])
        return optax.tree_utils.tree_vdot(clipped, weights)

    for got, want in zip(*(jax.tree.leaves(jax.grad(f)(GRADS)) for f in (by_transformation, by_hand)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@each
@pytest.mark.parametrize("dtypes", [("bfloat16", "bfloat16"), ("float64", "float64"), ("float32", "float64")])
def test_under_strict_settings_the_state_has_the_dtype_of_the_parameters(policy, dtypes):
    of_params, of_updates = dtypes
    policy = Schedule(optax.linear_schedule(3.0, 1.0, 20)) if isinstance(policy, Schedule) else policy
    with (
        jax.enable_x64("float64" in dtypes),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_nans(True),
    ):
        tx = transformation(policy)
        state = tx.init(jax.tree.map(lambda x: x.astype(of_params), PARAMS))
        types = jax.tree.map(jax.typeof, state)
        for _ in range(3):
            updates, state = jax.jit(tx.update)(jax.tree.map(lambda x: x.astype(of_updates), GRADS), state)
            assert {x.dtype.name for x in jax.tree.leaves(updates)} == {of_updates}
            assert jax.tree.map(jax.typeof, state) == types
        assert state.norm.dtype == ("float64" if of_params == "float64" else "float32")


@each
@pytest.mark.parametrize("tree", [{}, {"a": None}, [jnp.zeros((0, 3))], [jnp.ones(())]])
def test_unusual_trees(policy, tree):
    tx = transformation(policy)
    for state in (tx.init(tree), jax.jit(tx.init)(tree)):
        updates, after = jax.jit(tx.update)(tree, jax.tree.map(jnp.copy, state), tree)
        assert jax.tree.structure(updates) == jax.tree.structure(tree)
        assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)
        jax.jit(tx.update, donate_argnums=1)(tree, after, tree)
        jax.jit(tx.update, donate_argnums=1)(tree, state, tree)


def test_leaves_without_gradients_have_no_threshold():
    """Integer parameters have derivatives of dtype float0; their leaves are not counted."""
    params = {"n": jnp.arange(3), "w": jnp.ones(2), "none": None}
    tx = ours.clip_by_global_norm(EmaClip(1.1))
    state = tx.init(params)
    grads = jax.grad(lambda p: jnp.sum(p["w"] * p["n"][:2]), allow_int=True)(params)
    updates, state = tx.update(grads, state, params)
    assert state.max_norm.shape == (1,)
    assert updates["n"] is grads["n"]


class Last(NamedTuple):
    norm: jax.Array


class Unhashable:
    """A policy of a user's: twice the last norm. It has no hash, and its state holds the norm itself."""

    skips: ClassVar[bool] = False
    per_leaf: ClassVar[bool] = False
    __hash__ = None

    def __eq__(self, other):
        return NotImplemented

    def init(self, like):
        return Last(like)

    def update(self, state, norm):
        return 2 * state.norm, Last(norm)


def test_a_policy_of_the_user_s():
    tx = ours.clip_by_global_norm(Unhashable())
    state, got = tx.init(PARAMS), []
    for size in (1.0, 2.0, 9.0):
        updates, state = jax.jit(tx.update, donate_argnums=1)([jnp.full(1, size)], state)
        got.append(float(updates[0][0]))
    assert got == [0.0, 2.0, 4.0]
    assert got == [float(x[0]) for x in _eagerly(tx, [1.0, 2.0, 9.0])]


def _eagerly(tx, sizes):
    state = tx.init(PARAMS)
    for size in sizes:
        updates, state = tx.update([jnp.full(1, size)], state)
        yield updates[0]


def test_what_is_wrong_is_said():
    with pytest.raises(TypeError, match=r"max_norm is the class ZClip, expected a policy; pass ZClip\(\)"):
        ours.clip_by_global_norm(ZClip)
    with pytest.raises(ValueError, match=r"skips steps, expected a policy that clips.*skip_steps\(optimizer, policy\)"):
        ours.clip_by_global_norm(SkipStep(1.0))
    tx = ours.clip_by_global_norm(AdaGC())
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(1,\) in this step; call init with all parameters"):
        tx.update({"w": GRADS["w"], "b": None}, tx.init(PARAMS))
    other = ours.clip_by_global_norm(AutoClip(window=4))
    with pytest.raises(ValueError, match="has an AdaGCState as what its policy remembers, expected an AutoClipState"):
        other.update(GRADS, tx.init(PARAMS))
    with pytest.raises(ValueError, match=r"shape \(5,\), expected \(4,\) in this step; use the window"):
        other.update(GRADS, ours.clip_by_global_norm(AutoClip(window=5)).init(PARAMS))
    with pytest.raises(TypeError, match="state is a ClipState, expected the PolicyState that init"):
        other.update(GRADS, ours.clip_by_global_norm(1.0).init(PARAMS))
    with pytest.raises(TypeError, match="state is a PolicyState, expected the ClipState that init"):
        ours.clip_by_global_norm(1.0).update(GRADS, other.init(PARAMS))
    for make in (ours.clip_by_block_rms, ours.adaptive_grad_clip, ours.clip):
        with pytest.raises(TypeError, match="ZClip"):
            make(ZClip())


@pytest.mark.parametrize("state", [None, optax.EmptyState(), (), {}])
def test_a_state_that_is_missing_is_begun_anew(state):
    for policy in (ZClip(), AdaGC()):
        tx = ours.clip_by_global_norm(policy)
        got, want = tx.update(GRADS, state), tx.update(GRADS, tx.init(PARAMS))
        assert jax.tree.map(np.array_equal, got, want) == jax.tree.map(lambda _: True, want)


def test_a_fixed_policy_is_the_number():
    got, want = (ours.clip_by_global_norm(x).update(GRADS, None) for x in (Fixed(1.0), 1.0))
    for x, y in zip(jax.tree.leaves((got[0], got[1][:4])), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_one_compiled_function_serves_all_steps_and_equal_policies():
    from gradclip.backends.optax import _compute

    state = ours.clip_by_global_norm(ZClip()).update(GRADS, None)[1]
    before = _compute.by_policy._plain._cache_size()
    for _ in range(3):
        _, state = ours.clip_by_global_norm(ZClip()).update(GRADS, state)
    assert _compute.by_policy._plain._cache_size() == before
