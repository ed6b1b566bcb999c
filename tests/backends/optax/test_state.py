"""The state of a transformation: it tells what was applied, keeps its types, can be donated, and begins anew."""

import contextlib

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest

from gradclip.backends import optax as ours
from tests import exact
from tests.backends.jax.trees import numbers

GRADS = {"w": jnp.asarray([[3.0, -1.5], [0.25, 8.0]]), "b": jnp.asarray([-4.0, 0.0, 0.5])}
PARAMS = {"w": jnp.asarray([[1.0, 2.0], [0.5, -1.0]]), "b": jnp.asarray([0.1, 0.0, 3.0])}
MAKERS = {
    "global norm": ours.clip_by_global_norm,
    "block RMS": ours.clip_by_block_rms,
    "adaptive": ours.adaptive_grad_clip,
}
SIZES = {
    "float16": (1e-3, 1.0, 6e4),
    "bfloat16": (1e-36, 1e-19, 1.0, 1e19, 3e38),
    "float32": (1e-36, 1e-30, 1.0, 1e30, 3e38),
    "float64": (1e-305, 1e-200, 1.0, 1e200, 1.7e308),
}
RATIOS = (0.3, 0.99, 1.01, 3.0, 1e-4, 1e-8)


def precision(dtype):
    """Return JAX's setting for a dtype."""
    return jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext()


def assert_told(state, gradient, updates, limit, size):
    """Assert that the state tells min(1, limit / size), and that the updates are the gradient times that."""
    kind = jnp.finfo(state.coefficient.dtype)
    right = min(mpmath.mpf(1), mpmath.mpf(float(limit)) / size)
    told = mpmath.mpf(float(state.coefficient))
    assert abs(told - right) <= max(right * (1e-14 if kind.bits == 64 else 1e-6), 2.0 ** (kind.minexp - kind.nmant))
    assert bool(state.clipped) == (right < 1)
    for x, y in zip(numbers(gradient), numbers(updates), strict=True):
        rounding = max(float(jnp.finfo(gradient.dtype).eps), 1e-14 if kind.bits == 64 else 1e-6)
        subnormal = float(jnp.finfo(gradient.dtype).tiny)
        assert abs(y - x * right) <= abs(x) * right * rounding + subnormal


@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("jit", [False, True])
def test_the_coefficient_that_is_told_is_the_one_that_was_applied(dtype, jit):
    """At any magnitude: where the norm overflows, and where the coefficient itself is subnormal."""
    with precision(dtype):
        kind = np.finfo("float64" if dtype == "float64" else "float32")
        ways = [lambda g, m, make=make: make(m).update(g, None) for make in list(MAKERS.values())[:2]]
        ways = [jax.jit(way) for way in ways] if jit else ways
        for size in SIZES[dtype]:
            gradient = jnp.asarray(np.array([1.0, -0.5, 0.25, 0.75]) * size).astype(dtype)
            norm = exact.norm(numbers(gradient))
            limits = [*(size * ratio for ratio in RATIOS), 1.0, 1e-3]
            for limit in (float(kind.dtype.type(x)) for x in limits if 8 * float(kind.tiny) <= x <= float(kind.max)):
                for way, whole in zip(ways, (norm, norm / 2), strict=True):
                    updates, state = way(gradient, limit)
                    assert_told(state, gradient, updates, limit, whole)


@pytest.mark.parametrize("dtype", SIZES)
def test_adaptive_clipping_tells_the_coefficient_that_it_applied(dtype):
    with precision(dtype):
        accumulated = jnp.float64 if dtype == "float64" else jnp.float32
        for size in SIZES[dtype]:
            gradient = jnp.asarray(np.array([1.0, -0.5, 0.25, 0.75]) * size).astype(dtype)
            for other, ratio in ((1.0, 0.01), (size, 0.5), (size, 1.0), (size * 0.9, 1.0), (size, 1e-3)):
                params = jnp.full(4, other).astype(dtype)
                ratio, eps = jnp.asarray(ratio, accumulated), jnp.asarray(1e-3, accumulated)
                limit = max(exact.norm(numbers(params)), mpmath.mpf(float(eps))) * mpmath.mpf(float(ratio))
                tx = ours.adaptive_grad_clip(ratio, eps)
                updates, state = tx.update(gradient, tx.init(params), params)
                assert_told(state, gradient, updates, 1.0, exact.norm(numbers(gradient)) / limit)


@pytest.mark.parametrize("size", [1e-37, 1e-20, 1.0, 3e38])
def test_a_threshold_of_zero_is_told_as_such(size):
    for make in MAKERS.values():
        tx = make(0.0)
        updates, state = tx.update([jnp.full(4, size)], tx.init(None), [jnp.ones(4)])
        assert set(numbers(updates)) == {0.0}
        assert (float(state.coefficient), int(state.clipped)) == (0.0, 1)


def test_of_many_coefficients_the_smallest_is_told():
    leaves = [jnp.full(4, size) for size in (3e38, 1.0, 1e-30, 0.0)]
    for tx in (ours.clip_by_block_rms(1e-3), ours.adaptive_grad_clip(1e-3)):
        _, state = tx.update(leaves, tx.init(leaves), [jnp.ones(4)] * 4)
        assert float(state.coefficient) == pytest.approx(1e-3 / 3e38, abs=2.0**-149)
        assert float(state.coefficient) > 0
        assert (int(state.clipped), int(state.step)) == (1, 1)
        _, state = tx.update([*leaves[1:], jnp.full(4, jnp.nan)], state, [jnp.ones(4)] * 4)
        assert jnp.isnan(state.coefficient)
        assert jnp.isnan(state.norm)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("max_norm", [1.0, None])
def test_a_step_that_is_zeroed_has_its_norm_the_coefficient_0_and_counts_as_clipped(bad, max_norm):
    tx = ours.clip_by_global_norm(max_norm, nonfinite="zero")
    updates, state = jax.jit(tx.update)({**GRADS, "b": jnp.asarray([bad, 1.0, 1.0])}, tx.init(PARAMS))
    assert set(numbers(updates)) == {0.0}
    assert not jnp.isfinite(state.norm)
    assert jnp.isnan(state.norm) == jnp.isnan(bad)
    assert (float(state.coefficient), int(state.clipped)) == (0.0, 1)


def test_without_a_threshold_nothing_counts_as_clipped():
    for bad in (1.0, jnp.nan, jnp.inf):
        tx = ours.clip_by_global_norm(None)
        _, state = tx.update([jnp.asarray([3.0, bad])], tx.init(None))
        assert (float(state.coefficient), int(state.clipped), int(state.step)) == (1.0, 0, 1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("begin", ["init", "None", "optax's"])
def test_the_state_keeps_its_dtypes(dtype, begin):
    with precision(dtype):
        params = jnp.ones(3, dtype)
        for make in MAKERS.values():
            tx = make(1.0)
            state = {"init": tx.init(params), "None": None, "optax's": optax.EmptyState()}[begin]
            updates, after = tx.update(params, state, params)
            assert updates.dtype == dtype
            wide = "float64" if dtype == "float64" else "float32"
            assert [x.dtype for x in after] == [wide, wide, "int32", "int32"]
            assert [x.dtype for x in tx.update(params, after, params)[1]] == [x.dtype for x in after]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("jit", [False, True])
def test_no_two_arrays_of_states_are_one(name, jit):
    """Each can be donated: of a fresh state, of a following one, and of all the transformations in a chain."""
    tx = optax.chain(MAKERS[name](1.0), MAKERS[name](0.5), optax.masked(MAKERS[name](0.1), True), optax.adam(1e-3))
    fresh = (jax.jit(tx.init) if jit else tx.init)(PARAMS)
    _, after = (jax.jit(tx.update) if jit else tx.update)(GRADS, fresh, PARAMS)
    for state in (fresh, after):
        every = [*jax.tree.leaves(state), *jax.tree.leaves((GRADS, PARAMS))]
        assert len({x.unsafe_buffer_pointer() for x in every}) == len(every)
        updates, state = jax.jit(tx.update, donate_argnums=(0, 1))(jax.tree.map(jnp.copy, GRADS), state, PARAMS)
        jax.jit(tx.update, donate_argnums=(0, 1))(updates, state, PARAMS)  # nor of what a compiled step returns


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("tree", [{}, {"a": None}, [jnp.zeros((0, 3))], [jnp.ones(())]])
def test_states_of_unusual_trees_can_be_donated_too(name, tree):
    tx = MAKERS[name](1.0)
    for state in (tx.init(tree), None):
        _, after = tx.update(tree, state, tree)
        jax.jit(tx.update, donate_argnums=1)(tree, after, tree)


@pytest.mark.parametrize("state", [None, optax.EmptyState(), (), {}])
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("jit", [False, True])
def test_a_state_that_is_missing_or_optax_s_own_is_begun_anew(name, state, jit):
    tx = MAKERS[name](0.1)
    update = jax.jit(tx.update) if jit else tx.update
    got, want = update(GRADS, state, PARAMS), update(GRADS, tx.init(PARAMS), PARAMS)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    assert jax.tree.map(np.array_equal, got, want) == jax.tree.map(lambda _: True, want)
    assert list(map(int, update(GRADS, got[1], PARAMS)[1][2:])) == [2, 2]


def test_a_schedule_begins_with_the_state():
    tx = ours.clip_by_global_norm(optax.linear_schedule(1.0, 3.0, 2))
    updates, state = tx.update(GRADS, optax.EmptyState())
    assert float(exact.norm(numbers(updates))) == pytest.approx(1.0)
    assert float(exact.norm(numbers(tx.update(GRADS, state)[0]))) == pytest.approx(2.0)


@pytest.mark.parametrize("state", [(jnp.zeros(()),), {"norm": jnp.zeros(())}, [jnp.ones(())]])
def test_the_state_of_something_else_is_refused(state):
    for make in MAKERS.values():
        with pytest.raises(TypeError, match="expected the ClipState that init"):
            make(1.0).update(GRADS, state, PARAMS)


@pytest.mark.parametrize("name", MAKERS)
def test_states_of_many_models_at_once(name):
    tx = optax.chain(MAKERS[name](0.1), optax.sgd(1.0))
    many = jax.tree.map(lambda x: jnp.stack([x, 100 * x, 0 * x]), GRADS)
    params = jax.tree.map(lambda x: jnp.stack([x] * 3), PARAMS)
    updates, states = jax.jit(jax.vmap(tx.update), donate_argnums=1)(many, jax.vmap(tx.init)(params), params)
    for i in range(3):
        alone, state = tx.update(jax.tree.map(lambda x, i=i: x[i], many), tx.init(PARAMS), PARAMS)
        for x, y in zip(jax.tree.leaves((updates, states)), jax.tree.leaves((alone, state)), strict=True):
            np.testing.assert_allclose(x[i], y, rtol=1e-6)


def test_optax_finds_its_way_in_the_state():
    tx = optax.chain(ours.clip_by_global_norm(1.0), optax.adam(1e-3))
    state = tx.update(GRADS, tx.init(PARAMS), PARAMS)[1]
    assert optax.tree_utils.tree_get(state, "norm") == state[0].norm
    assert float(optax.tree_utils.tree_set(state, norm=jnp.asarray(7.0))[0].norm) == 7.0
    kinds = optax.tree_map_params(tx, lambda _: "parameter", state, transform_non_params=lambda _: "other")
    assert set(kinds[0]) == {"other"}
    assert jax.eval_shape(tx.init, PARAMS)[0].norm.dtype == jnp.float32
