"""The transformations beside optax's, and in every place that optax has for one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradclip.backends import optax as ours
from tests import exact
from tests.backends.jax.trees import numbers

GRADS = {"w": jnp.asarray([[3.0, -1.5], [0.25, 8.0]]), "b": jnp.asarray([-4.0, 0.0, 0.5])}
PARAMS = {"w": jnp.asarray([[1.0, 2.0], [0.5, -1.0]]), "b": jnp.asarray([0.1, 0.0, 3.0])}
SMALL = jax.tree.map(lambda x: x * 1e-3, GRADS)
MAKERS = {
    "clip": lambda lib: lib.clip(1.0),
    "clip_by_global_norm": lambda lib: lib.clip_by_global_norm(1.0),
    "clip_by_block_rms": lambda lib: lib.clip_by_block_rms(0.5),
    "adaptive_grad_clip": lambda lib: lib.adaptive_grad_clip(0.01),
    "adaptive_grad_clip axis": lambda lib: lib.adaptive_grad_clip(0.01, eps=0.1, axis=-1),
}
CHAINS = {
    "chain": lambda clip: optax.chain(clip, optax.adam(1e-2)),
    "named_chain": lambda clip: optax.named_chain(("clip", clip), ("adam", optax.adam(1e-2))),
    "masked": lambda clip: optax.masked(clip, {"w": True, "b": False}),
    "multi_transform": lambda clip: optax.multi_transform(
        {"clip": clip, "none": optax.identity()}, {"w": "clip", "b": "none"}
    ),
    "MultiSteps": lambda clip: optax.MultiSteps(optax.chain(clip, optax.sgd(0.1)), 2).gradient_transformation(),
    "apply_if_finite": lambda clip: optax.apply_if_finite(clip, 2),
    "conditionally_transform": lambda clip: optax.conditionally_transform(clip, lambda step: step % 2 == 0),
    "extra arguments": optax.with_extra_args_support,
    "inject_hyperparams": lambda clip: optax.inject_hyperparams(lambda rate: optax.chain(clip, optax.sgd(rate)))(0.1),
    "flatten": lambda clip: optax.flatten(clip),
}


def close(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-6)
        assert x.dtype == y.dtype


@pytest.mark.parametrize(("place", "jit"), [("chain", False), *((place, True) for place in CHAINS)])
@pytest.mark.parametrize("name", MAKERS)
def test_updates_are_optax_s_in_every_place(name, place, jit):
    if place == "flatten" and name.startswith("adaptive"):
        name = "clip"  # flattened, a parameter's units are gone
    updates = []
    for lib in (ours, optax):
        tx = CHAINS[place](MAKERS[name](lib))
        update, state = jax.jit(tx.update) if jit else tx.update, tx.init(PARAMS)
        for grads in (GRADS, SMALL, GRADS):
            new, after = update(grads, state, PARAMS)
            assert jax.tree.structure(after) == jax.tree.structure(state)
            assert [x.dtype for x in jax.tree.leaves(after)] == [x.dtype for x in jax.tree.leaves(state)]
            state = after
        updates.append(new)
    close(*updates)


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "clip"])
def test_the_state_tells_what_happened(name):
    tx = MAKERS[name](ours)
    state = tx.init(PARAMS)
    assert [float(x) for x in state] == [0.0, 1.0, 0.0, 0.0]
    for grads in (GRADS, jax.tree.map(lambda x: x * 1e-9, GRADS), GRADS):
        updates, state = tx.update(grads, state, PARAMS)
    assert float(state.norm) == pytest.approx(float(exact.norm(numbers(GRADS))))
    assert (int(state.clipped), int(state.step)) == (2, 3)
    ratios = np.concatenate(
        [
            np.ravel(x)[np.ravel(y) != 0] / np.ravel(y)[np.ravel(y) != 0]
            for x, y in zip(jax.tree.leaves(updates), jax.tree.leaves(GRADS), strict=True)
        ]
    )
    assert float(state.coefficient) == pytest.approx(ratios.min(), rel=1e-6)


def test_schedules_are_called_with_the_number_of_steps():
    schedule = optax.linear_schedule(1.0, 3.0, 2)
    for make in (ours.clip_by_global_norm, ours.clip_by_block_rms):
        tx = make(schedule)
        state, got = tx.init(PARAMS), []
        for _ in range(3):
            updates, state = jax.jit(tx.update)(GRADS, state)
            got.append(updates)
        for i, updates in enumerate(got):
            close(updates, make(1.0 + i).update(GRADS, state)[0])
    tx = ours.adaptive_grad_clip(schedule)
    close(tx.update(GRADS, tx.init(PARAMS), PARAMS)[0], optax.adaptive_grad_clip(1.0).update(GRADS, None, PARAMS)[0])


@pytest.mark.parametrize("value", [1.0, optax.constant_schedule(1.0)])
def test_hyperparameters_are_injected(value):
    makers = {
        "clip": "max_delta",
        "clip_by_global_norm": "max_norm",
        "clip_by_block_rms": "threshold",
        "adaptive_grad_clip": "clipping",
    }
    for name, argument in makers.items():
        tx = optax.inject_hyperparams(getattr(ours, name))(**{argument: value})
        state = tx.init(PARAMS)
        updates, state = jax.jit(tx.update)(GRADS, state, PARAMS)
        close(updates, getattr(optax, name)(1.0).update(GRADS, optax.EmptyState(), PARAMS)[0])
        assert float(state.hyperparams[argument]) == 1.0


def test_a_threshold_may_be_set_between_steps():
    tx = optax.inject_hyperparams(ours.clip_by_global_norm)(max_norm=1.0)
    state = tx.init(PARAMS)
    state.hyperparams["max_norm"] = jnp.asarray(2.0)
    updates, _ = tx.update(GRADS, state)
    assert float(exact.norm(numbers(updates))) == pytest.approx(2.0)


def test_one_bad_step_is_lost_but_not_the_model():
    tx = optax.chain(ours.clip_by_global_norm(1.0, nonfinite="zero"), optax.sgd(0.1))
    bad = {**GRADS, "b": jnp.asarray([jnp.nan, 1.0, 1.0])}
    updates, state = jax.jit(tx.update)(bad, tx.init(PARAMS))
    assert {float(x) for u in jax.tree.leaves(updates) for x in u.ravel()} == {0.0}
    assert (int(state[0].clipped), float(state[0].coefficient)) == (1, 0.0)
    with pytest.raises(FloatingPointError, match=r"updates\['b'\]"):
        ours.clip_by_global_norm(1.0, nonfinite="error").update(bad, ours.clip_by_global_norm(1.0).init(PARAMS))


def test_steps_scan():
    tx = optax.chain(ours.clip_by_global_norm(1.0), ours.adaptive_grad_clip(0.1), optax.adamw(1e-2))

    def step(carry, scale):
        params, state = carry
        updates, state = tx.update(jax.tree.map(lambda g: g * scale, GRADS), state, params)
        return (optax.apply_updates(params, updates), state), state[0].norm

    _, norms = jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), jnp.asarray([1.0, 2.0, 0.01]))
    assert norms.tolist() == pytest.approx([float(exact.norm(numbers(GRADS))) * s for s in (1.0, 2.0, 0.01)])


def test_float0_none_and_functions_pass_through():
    tx = ours.clip_by_global_norm(1.0)
    odd = np.zeros(2, jax.dtypes.float0)
    updates, _ = tx.update({"a": jnp.asarray([3.0, 4.0]), "b": None, "c": odd, "d": jax.nn.relu}, tx.init(None))
    assert updates["c"] is odd
    assert updates["d"] is jax.nn.relu
    assert updates["b"] is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize("name", MAKERS)
def test_under_strict_settings(name, dtype):
    """Strict promotion of dtypes and ranks, NaN checks, with and without x64, compiled and not."""
    for x64 in sorted({dtype == "float64", True}):
        with (
            jax.enable_x64(x64),
            jax.numpy_dtype_promotion("strict"),
            jax.numpy_rank_promotion("raise"),
            jax.debug_nans(True),
        ):
            tx = MAKERS[name](ours)
            grads, params = jax.tree.map(lambda x: x.astype(dtype), (GRADS, PARAMS))
            for updates in (grads, jax.tree.map(jnp.zeros_like, grads)):
                compiled = jax.jit(tx.update)(updates, tx.init(params), params)
                assert {x.dtype.name for x in jax.tree.leaves(compiled[0])} == {dtype}
                with jax.disable_jit():
                    alone = tx.update(updates, tx.init(params), params)
                for x, y in zip(*map(jax.tree.leaves, (compiled, alone)), strict=True):
                    np.testing.assert_allclose(np.float64(x), np.float64(y), rtol=2 * float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize("tree", [{}, [], {"a": None}])
@pytest.mark.parametrize("name", MAKERS)
def test_nothing_is_clipped_to_nothing(name, tree):
    tx = MAKERS[name](ours)
    updates, _ = tx.update(tree, tx.init(tree), tree)
    assert updates == tree


def test_what_is_wrong_is_said():
    for bad in (-1.0, float("nan")):
        for make in (ours.clip, ours.clip_by_global_norm, ours.clip_by_block_rms, ours.adaptive_grad_clip):
            with pytest.raises(ValueError, match="expected a number >= 0"):
                make(bad)
    with pytest.raises(ValueError, match="nonfinite='ignore'"):
        ours.clip_by_global_norm(1.0, nonfinite="ignore")
    with pytest.raises(ValueError, match="adaptive_grad_clip got params=None"):
        ours.adaptive_grad_clip(0.1).update(GRADS, None)
    tx = ours.clip_by_global_norm(1.0)
    with pytest.raises(TypeError, match=r"updates\['a'\] is a float"):
        tx.update({"a": 1.0}, tx.init(None))


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("limit", [0.0, 0.5, 1.25, jnp.inf])
def test_examples_are_clipped_as_optax_does(limit, uniform):
    key = np.random.default_rng(0)
    grads = [jnp.asarray(key.standard_normal((5, *shape)), jnp.float32) for shape in ((3,), (2, 4), ())]
    for got, want in (
        (ours.per_example_global_norm_clip(grads, limit), optax.per_example_global_norm_clip(grads, limit)),
        (
            ours.per_example_layer_norm_clip(grads, limit, uniform),
            optax.per_example_layer_norm_clip(grads, limit, uniform),
        ),
    ):
        for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="leading axis"):
        ours.per_example_global_norm_clip([jnp.ones(()), jnp.ones(3)], 1.0)
    with pytest.raises(ValueError, match="leading axis"):
        ours.per_example_layer_norm_clip([jnp.ones(2), jnp.ones(3)], 1.0)


def test_names_and_signatures_are_optax_s():
    import inspect

    of_ours = {"ClipState", "PolicyState", "SkipState", "skip_steps"}
    for name in ours.__all__:
        if name not in of_ours:
            theirs = inspect.signature(getattr(optax, name)).parameters
            mine = inspect.signature(getattr(ours, name)).parameters
            positional = {k: p.default for k, p in mine.items() if p.kind is not p.KEYWORD_ONLY}
            assert positional == {k: p.default for k, p in theirs.items()}
