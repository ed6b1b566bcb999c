"""A skipped step changes nothing: no parameter, and nothing that an optimizer remembers."""

import contextlib
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradclip.backends import optax as ours
from gradclip.policies import AdaGC, SkipStep, ZClip
from tests.backends.jax.trees import numbers

GRADS = {"w": jnp.asarray([[3.0, -1.5], [0.25, 8.0]]), "b": jnp.asarray([-4.0, 0.0, 0.5])}
PARAMS = {"w": jnp.asarray([[1.0, 2.0], [0.5, -1.0]]), "b": jnp.asarray([0.1, 0.0, 3.0])}
SIZES = (1.0, 0.5, 2.0)
"""What ordinary gradients are multiplied by, step by step: none has a norm of 25."""

OPTIMIZERS = {
    "adam": optax.adam(0.1),
    "adamw": optax.adamw(optax.cosine_decay_schedule(0.1, 10), weight_decay=0.1),
    "sgd with momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "lion": optax.lion(0.01),
    "adafactor": optax.adafactor(0.1, weight_decay_rate=0.1, momentum=0.9),
    "lamb": optax.lamb(0.1, weight_decay=0.1),
    "adagrad": optax.adagrad(0.1),
    "rmsprop": optax.rmsprop(0.1, momentum=0.9),
    "amsgrad": optax.amsgrad(0.1),
    "noisy_sgd": optax.noisy_sgd(0.1, key=jax.random.key(0)),
    "muon": optax.contrib.muon(0.1, weight_decay=0.1),
    "schedule-free": optax.contrib.schedule_free_adamw(0.1, weight_decay=0.1),
    "clipped": optax.chain(ours.clip_by_global_norm(ZClip()), optax.add_decayed_weights(0.1), optax.adam(0.1)),
    "injected": optax.inject_hyperparams(optax.adamw)(optax.linear_schedule(0.1, 0.0, 9), weight_decay=0.1),
    "MultiSteps": optax.MultiSteps(optax.adamw(0.1, weight_decay=0.1), 2).gradient_transformation(),
    "multi_transform": optax.multi_transform(
        {"adam": optax.adam(0.1), "sgd": optax.sgd(0.1, 0.9)}, {"w": "adam", "b": "sgd"}
    ),
}


def spoiled(bad):
    return {**GRADS, "b": jnp.asarray([bad, 1.0, 1.0])}


def same(one, other):
    """Assert that pytrees are equal bit for bit, keys of random numbers too."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert jax.typeof(x) == jax.typeof(y)
        x, y = (jax.random.key_data(z) if jnp.issubdtype(z.dtype, jax.dtypes.prng_key) else z for z in (x, y))
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_moves_in_a_skipped_step_and_the_next_is_what_it_would_have_been(name):
    tx = ours.skip_steps(OPTIMIZERS[name], SkipStep(threshold=25.0))

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, updates

    def run(bad):
        params, state = PARAMS, tx.init(PARAMS)
        for size in SIZES:
            for grads in bad:
                after, skipped, updates = step(params, state, grads)
                assert set(numbers(updates)) == {0.0}
                same(after, params)
                same(skipped.inner_state, state.inner_state)
                assert bool(skipped.last_skipped)
                params, state = after, skipped
            params, state, _ = step(params, state, jax.tree.map(lambda g, size=size: g * size, GRADS))
            assert not bool(state.last_skipped)
        return params, state

    params, state = run([spoiled(jnp.nan), spoiled(-jnp.inf), spoiled(26.0)])
    expected, without = run([])
    same(params, expected)
    same(state.inner_state, without.inner_state)
    assert (int(state.skipped), int(state.step), int(without.skipped), int(without.step)) == (9, 12, 0, 3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_that_are_not_skipped_are_those_of_the_optimizer(name):
    inner = OPTIMIZERS[name]
    tx = ours.skip_steps(inner, SkipStep(sigma=6, window=8))
    alone, state = inner.init(PARAMS), tx.init(PARAMS)
    for size in SIZES:
        grads = jax.tree.map(lambda g, size=size: g * size, GRADS)
        expected, alone = jax.jit(inner.update)(grads, alone, PARAMS)
        updates, state = jax.jit(tx.update)(grads, state, PARAMS)
        for x, y in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
            assert x.dtype == y.dtype
    assert jax.tree.map(jax.typeof, state.inner_state) == jax.tree.map(jax.typeof, alone)


def test_it_skips_what_apply_if_finite_skips():
    theirs, mine = (
        wrap(optax.adamw(0.1)) for wrap in (lambda tx: optax.apply_if_finite(tx, 100), _skip_above_the_largest)
    )
    states = theirs.init(PARAMS), mine.init(PARAMS)
    for grads in (GRADS, spoiled(jnp.nan), spoiled(jnp.inf), GRADS):
        (one, first), (two, second) = (
            tx.update(grads, state, PARAMS) for tx, state in zip((theirs, mine), states, strict=True)
        )
        states = first, second
        assert jax.tree.structure(first.inner_state) == jax.tree.structure(second.inner_state)
        pairs = zip(*map(jax.tree.leaves, ((one, first.inner_state), (two, second.inner_state))), strict=True)
        for x, y in pairs:
            np.testing.assert_allclose(x, y, rtol=1e-6)
        assert bool(first.last_finite) != bool(second.last_skipped)
    assert int(states[0].total_notfinite) == int(states[1].skipped) == 2


def _skip_above_the_largest(tx):
    return ours.skip_steps(tx, SkipStep(threshold=3e38))


def test_an_outlier_among_the_norms_before_is_skipped_in_a_loop():
    policy = SkipStep(sigma=3, window=8)
    tx = ours.skip_steps(optax.sgd(1.0, momentum=0.9), policy)
    sizes = jnp.asarray([1.0, 1.1, 0.9, 1.0, jnp.nan, 50.0, 1.0, 0.0, 1.05, jnp.inf, 0.95])

    def step(carry, size):
        params, state = carry
        updates, state = tx.update(size * jnp.ones(3), state, params)
        return (params + updates, state), (state.max_norm, state.last_skipped)

    def run(sizes):
        return jax.lax.scan(step, (jnp.zeros(3), tx.init(jnp.zeros(3))), sizes)

    (params, state), (limits, skipped) = jax.jit(run)(sizes)
    remembered, expected = policy.init(0.0), []
    for size in sizes.tolist():
        limit, remembered = policy.update(remembered, size * 3**0.5)
        expected.append(limit)
    np.testing.assert_allclose(limits, expected, rtol=1e-6)
    assert skipped.nonzero()[0].tolist() == [4, 5, 9]
    assert int(state.skipped) == 3
    (alone, _), _ = run(sizes[np.asarray([0, 1, 2, 3, 6, 7, 8, 10])])
    np.testing.assert_allclose(params, alone, rtol=1e-6)
    rows = jnp.stack([sizes, sizes[::-1]])
    (many, _), (_, skips) = jax.jit(jax.vmap(run))(rows)
    np.testing.assert_allclose(many[0], params, rtol=1e-6)
    np.testing.assert_array_equal(skips[1], run(rows[1])[1][1])


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_on_accelerators_there_is_no_condition_and_no_callback(platform):
    """The host would wait for the value of a condition, or be called back with it."""
    tx = ours.skip_steps(optax.adamw(0.1), SkipStep(sigma=6))
    program = jax.jit(tx.update).trace(GRADS, tx.init(PARAMS), PARAMS).lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.select" in program
    assert "(tensor<i1>) -> tensor<i32>" not in program  # a truth that chooses a branch
    assert not any(f"stablehlo.{word}" in program for word in ("if", "while", "infeed", "outfeed", "custom_call"))


@pytest.mark.parametrize("jit", [False, True])
def test_states_and_gradients_can_be_donated(jit):
    tx = ours.skip_steps(optax.adam(0.1), SkipStep(threshold=25.0))
    state = (jax.jit(tx.init) if jit else tx.init)(PARAMS)
    types = jax.tree.map(jax.typeof, state)
    step = jax.jit(tx.update, donate_argnums=(0, 1))
    for grads in (GRADS, spoiled(jnp.nan), GRADS):
        _, state = step(jax.tree.map(jnp.copy, grads), state, PARAMS)
        assert jax.tree.map(jax.typeof, state) == types


def test_derivatives():
    """Those of a skipped step are zero, also where it has NaN; those of others are the optimizer's."""
    inner = optax.sgd(0.5, momentum=0.9)
    tx = ours.skip_steps(inner, SkipStep(threshold=25.0))

    def total(transformation, grads):
        updates = transformation.update(grads, transformation.init(PARAMS), PARAMS)[0]
        return sum(jnp.sum(jnp.sin(u)) for u in jax.tree.leaves(updates))

    for grads in (spoiled(jnp.nan), spoiled(1e3)):
        assert set(numbers(jax.grad(total, argnums=1)(tx, grads))) == {0.0}
    for x, y in zip(*(jax.tree.leaves(jax.grad(total, argnums=1)(t, GRADS)) for t in (tx, inner)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_leaves_that_are_no_gradients():
    """None, float0 (derivatives with respect to integers), functions, and the nodes of masks."""
    params = {"w": jnp.ones(2), "n": jnp.arange(3), "none": None}
    mask = {"w": True, "n": False, "none": False}
    grads = jax.grad(lambda p: jnp.sum(p["w"] ** 2 * p["n"][:2]), allow_int=True)(params)
    for tx in (
        ours.skip_steps(optax.masked(optax.adamw(0.1), mask), SkipStep(threshold=100.0)),
        optax.masked(ours.skip_steps(optax.adamw(0.1), SkipStep(threshold=100.0)), mask),
    ):
        state = tx.init(params)
        updates, after = tx.update(grads, state, params)
        assert np.all(updates["w"] != 0)
        updates, skipped = tx.update({**grads, "w": jnp.full(2, 1e3)}, after, params)
        assert updates["w"].tolist() == [0, 0]
        assert updates["none"] is None
        assert updates["n"].dtype == jax.dtypes.float0
        same(
            optax.tree_utils.tree_get_all_with_path(skipped, "mu")[0][1],
            optax.tree_utils.tree_get_all_with_path(after, "mu")[0][1],
        )
    tx = ours.skip_steps(optax.identity(), SkipStep(threshold=1.0))
    updates, _ = tx.update({"f": jax.nn.relu, "w": jnp.full(2, 3.0)}, tx.init(params))
    assert updates["f"] is jax.nn.relu
    assert updates["w"].tolist() == [0, 0]


def test_extra_arguments_are_passed_to_the_optimizer():
    def value_of(params):
        return jnp.sum(params**2)

    inner = optax.lbfgs()
    tx = ours.skip_steps(inner, SkipStep(threshold=100.0))
    params = jnp.asarray([3.0, -2.0])
    state, alone = tx.init(params), inner.init(params)
    value, grads = jax.value_and_grad(value_of)(params)
    extra = {"value": value, "grad": grads, "value_fn": value_of}
    updates, after = jax.jit(lambda s: tx.update(grads, s, params, **extra))(state)
    expected, _ = inner.update(grads, alone, params, **extra)
    np.testing.assert_allclose(updates, expected, rtol=1e-5)
    updates, skipped = tx.update(grads * 1e3, after, params, **extra)
    assert updates.tolist() == [0, 0]
    same(skipped.inner_state, after.inner_state)
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    plain = ours.skip_steps(optax.sgd(0.1), SkipStep(threshold=100.0))  # takes none, and is not given any
    assert plain.update(grads, plain.init(params), params, value=value)[0].shape == (2,)


@pytest.mark.parametrize(
    "place",
    [
        lambda tx: optax.chain(ours.clip_by_global_norm(100.0), tx),
        lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
        lambda tx: optax.masked(tx, {"w": True, "b": False}),
        lambda tx: optax.apply_if_finite(tx, 3),
        lambda tx: optax.inject_hyperparams(lambda rate: optax.chain(tx, optax.scale(rate)))(0.1),
    ],
)
def test_in_places_of_optax(place):
    tx = place(ours.skip_steps(optax.adam(0.1), SkipStep(threshold=25.0)))
    state = tx.init(PARAMS)
    types = jax.tree.map(jax.typeof, state)
    for size in (1.0, 1.0, 100.0, 100.0, 1.0, 1.0):
        _, state = jax.jit(tx.update)(jax.tree.map(lambda g, size=size: g * size, GRADS), state, PARAMS)
        assert jax.tree.map(jax.typeof, state) == types
    assert int(optax.tree_utils.tree_get(state, "skipped")) >= 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize("jit", [False, True])
def test_under_strict_settings(dtype, jit):
    context = jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext()
    with context, jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        grads, params = jax.tree.map(lambda x: x.astype(dtype), (GRADS, PARAMS))
        tx = ours.skip_steps(optax.sgd(0.1, momentum=0.9), SkipStep(threshold=25.0))
        update = jax.jit(tx.update) if jit else tx.update
        for some in (grads, jax.tree.map(lambda x: x * 100, grads)):
            updates, state = update(some, tx.init(params), params)
            assert {x.dtype.name for x in jax.tree.leaves(updates)} == {dtype}
        assert bool(state.last_skipped)


def test_an_optimizer_whose_updates_have_another_dtype():
    tx = ours.skip_steps(
        optax.GradientTransformation(
            lambda _: jnp.zeros((), jnp.float16), lambda g, s, _: (g.astype("float32"), s + 1.0)
        ),
        SkipStep(threshold=25.0),
    )
    for value in (1.0, 100.0):
        updates, state = tx.update(jnp.full(3, value, jnp.bfloat16), tx.init(None))
        assert (updates.dtype, state.inner_state.dtype) == ("float32", "float16")
    assert (updates.tolist(), float(state.inner_state)) == ([0.0] * 3, 0.0)


class Nothing(NamedTuple):
    pass


class SkipsALeaf:
    """A policy of a user's, without a hash: skips a step if one leaf has a norm above its threshold."""

    skips: ClassVar[bool] = True
    per_leaf: ClassVar[bool] = True
    __hash__: Any = None

    def __init__(self, limits):
        self.limits = limits

    def __eq__(self, other):
        return NotImplemented

    def init(self, like):
        return Nothing()

    def update(self, state, norm):
        return jnp.asarray(self.limits, norm.dtype), state


def test_a_policy_of_the_user_s_with_a_threshold_for_each_leaf():
    tx = ours.skip_steps(optax.sgd(1.0), SkipsALeaf([1.0, 10.0]))
    for pair, skipped in (((0.5, 9.0), False), ((2.0, 2.0), True), ((0.5, jnp.nan), True), ((0.5, 11.0), True)):
        updates, state = jax.jit(tx.update)([jnp.full(1, x) for x in pair], tx.init([jnp.zeros(1)] * 2))
        assert bool(state.last_skipped) == skipped
        assert [float(u[0]) for u in updates] == ([0, 0] if skipped else [-x for x in pair])
        assert state.max_norm.tolist() == [1, 10]


def test_what_is_wrong_is_said():
    for bad in (10.0, None, "skip"):
        with pytest.raises(TypeError, match=r"expected a policy that skips steps; pass one of gradclip\.policies"):
            ours.skip_steps(optax.sgd(0.1), bad)
    with pytest.raises(TypeError, match=r"policy is the class SkipStep, expected a policy; pass SkipStep\(\)"):
        ours.skip_steps(optax.sgd(0.1), SkipStep)
    for policy in (ZClip(), AdaGC()):
        with pytest.raises(ValueError, match=r"clips and does not skip.*optax\.chain\(clip_by_global_norm\(policy\)"):
            ours.skip_steps(optax.sgd(0.1), policy)
    with pytest.raises(TypeError, match="axis_name=3, expected the name"):
        ours.skip_steps(optax.sgd(0.1), SkipStep(1.0), axis_name=3)
    tx = ours.skip_steps(optax.sgd(0.1), SkipStep(1.0))
    for state in (None, optax.EmptyState(), optax.adam(0.1).init(PARAMS)):
        with pytest.raises(TypeError, match=r"expected the SkipState that init.*_replace\(inner_state=state\)"):
            tx.update(GRADS, state, PARAMS)
    with pytest.raises(TypeError, match=r"updates\['b'\] has dtype int32, expected real or complex"):
        tx.update({"b": jnp.arange(3)}, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=r"has a FixedState as what its policy remembers, expected a SkipStepState"):
        ours.skip_steps(optax.sgd(0.1), SkipStep(sigma=6)).update(GRADS, tx.init(PARAMS), PARAMS)
    clipped = ours.skip_steps(ours.clip_by_global_norm(1.0), SkipStep(1.0))
    with pytest.raises(ValueError, match="the state of the inner transformation had the structure"):
        clipped.update(GRADS, clipped.init(PARAMS)._replace(inner_state=optax.EmptyState()), PARAMS)
