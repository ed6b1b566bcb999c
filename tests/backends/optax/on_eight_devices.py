"""States in ``shard_map`` and ``pmap``, on eight virtual devices: run by tests/backends/jax/test_mesh.py."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from gradclip.backends import optax as ours
from gradclip.backends.jax._mesh import vary
from gradclip.policies import AdaGC, AutoClip, EmaClip, Schedule, SkipStep, ZClip

if jax.device_count() < 8:
    pytest.skip("needs eight devices", allow_module_level=True)

P = PartitionSpec
MESH = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
GRID = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
BOTH = ("data", "model")
KEY = np.random.default_rng(0)
GRADS = {"w": KEY.standard_normal((16, 24)).astype("float32"), "b": KEY.standard_normal(8).astype("float32")}
NORM = float(np.sqrt(sum((x.astype("float64") ** 2).sum() for x in GRADS.values())))
COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(")

TRANSFORMATIONS = {
    "global norm": lambda axes: ours.clip_by_global_norm(1.0, axis_name=axes),
    "global norm, zeroed": lambda axes: ours.clip_by_global_norm(1.0, nonfinite="zero", axis_name=axes),
    "global norm, not clipped": lambda axes: ours.clip_by_global_norm(None, axis_name=axes),
    "global norm, scheduled": lambda axes: ours.clip_by_global_norm(lambda step: 1.0 / (1 + step), axis_name=axes),
    "global norm, injected": lambda axes: optax.inject_hyperparams(partial(ours.clip_by_global_norm, axis_name=axes))(
        max_norm=1.0
    ),
    "global norm, by ZClip": lambda axes: ours.clip_by_global_norm(ZClip(), axis_name=axes),
    "global norm, by AutoClip": lambda axes: ours.clip_by_global_norm(AutoClip(window=4), axis_name=axes),
    "global norm, by Schedule": lambda axes: ours.clip_by_global_norm(
        Schedule(lambda i: 1.0 / (1 + i)), axis_name=axes
    ),
    "global norm, by AdaGC": lambda axes: ours.clip_by_global_norm(AdaGC(), axis_name=axes),
    "chain that is skipped": lambda axes: ours.skip_steps(optax.adam(0.1), SkipStep(1.0), axis_name=axes),
    "block RMS": lambda axes: ours.clip_by_block_rms(0.3, axis_name=axes),
    "block RMS, scheduled": lambda axes: ours.clip_by_block_rms(lambda step: 1.0 / (1 + step), axis_name=axes),
    "adaptive": lambda axes: ours.adaptive_grad_clip(0.1, axis_name=axes),
    "chain": lambda axes: optax.chain(
        ours.clip_by_global_norm(1.0, axis_name=axes), ours.clip_by_block_rms(0.1, axis_name=axes)
    ),
    "masked": lambda axes: optax.masked(ours.clip_by_block_rms(0.3, axis_name=axes), {"w": True, "b": False}),
}
LOOPS = {
    "scan": lambda step, state: lax.scan(lambda s, _: (step(s), None), state, length=3)[0],
    "fori_loop": lambda step, state: lax.fori_loop(0, 3, lambda _, s: step(s), state),
    "while_loop": lambda step, state: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, step(c[1])), (0, state))[
        1
    ],
    "cond": lambda step, state: lax.cond(lax.axis_index("data") > 0, step, lambda s: s, state),
    "cond after a step": lambda step, state: lax.cond(True, step, lambda s: s, step(state)),
}
SPECS = {
    "along one axis": P("data"),
    "along both": P(BOTH),
    "each along another": {"w": P("data"), "b": P("model")},
    "one the same everywhere": {"w": P("data", "model"), "b": P()},
    "the same everywhere": P(),
}


def everywhere(tree):
    """Return what may differ from device to device as one value, so that it can leave shard_map."""
    numbers = jax.tree.map(lambda x: x.astype("int32") if x.dtype == bool else x, tree)
    return jax.tree.map(lambda x: lax.pmax(vary(x, frozenset(BOTH)), BOTH), numbers)


@pytest.mark.parametrize(
    ("specs", "loop", "check"), [*((s, w, True) for s in SPECS for w in LOOPS), ("along one axis", "scan", False)]
)
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_a_state_can_be_carried(name, specs, loop, check):
    """It is of the type that it has after any step from the first on."""
    for axes in ((), "data", BOTH):
        tx = TRANSFORMATIONS[name](axes)

        def run(grads, tx=tx):
            def step(state):
                return tx.update(grads, state, grads)[1]

            return everywhere(tuple(LOOPS[loop](step, begun) for begun in (tx.init(grads), step(tx.init(grads)))))

        sharded = jax.shard_map(run, mesh=GRID, in_specs=(SPECS[specs],), out_specs=P(), check_vma=check)
        jax.eval_shape(sharded, GRADS)


@pytest.mark.parametrize("make", [ours.clip_by_global_norm, ours.clip_by_block_rms, ours.adaptive_grad_clip])
def test_a_state_that_is_begun_anew_can_be_carried(make):
    tx = make(1.0, axis_name=())

    def run(grads):
        state = tx.update(grads, optax.EmptyState(), grads)[1]
        return everywhere(LOOPS["scan"](lambda s: tx.update(grads, s, grads)[1], state))

    jax.eval_shape(jax.shard_map(run, mesh=GRID, in_specs=P("data"), out_specs=P()), GRADS)


@pytest.mark.parametrize(("specs", "axes"), [(P(), None), (P("data"), "data"), (P(BOTH), BOTH), (P(), "data")])
def test_a_state_varies_no_more_than_its_norm(specs, axes):
    """So that it can leave shard_map where its norm is that of the whole, and its values are right."""
    tx = optax.chain(ours.clip_by_global_norm(1.0, axis_name=axes), optax.sgd(1.0))

    @jax.jit
    @partial(jax.shard_map, mesh=GRID, in_specs=specs, out_specs=(specs, P()))
    def train(grads):
        def step(state, _):
            updates, state = tx.update(grads, state)
            return state, updates

        state, updates = lax.scan(step, tx.init(grads), length=3)
        return jax.tree.map(lambda x: x[-1], updates), state[0]

    updates, state = train(GRADS)
    np.testing.assert_allclose(state.norm, NORM, rtol=1e-6)
    np.testing.assert_allclose(state.coefficient, 1 / NORM, rtol=1e-6)
    assert list(map(int, state[2:])) == [3, 3]
    np.testing.assert_allclose(updates["b"], -GRADS["b"] / NORM, rtol=1e-6)


@pytest.mark.parametrize("policy", [ZClip(warmup_steps=1, max_norm=0.5), EmaClip(0.5), AdaGC(warmup_steps=1)], ids=repr)
@pytest.mark.parametrize("specs", [{"w": P("data"), "b": P("model")}, {"w": P("data", "model"), "b": P()}])
def test_the_thresholds_of_policies_are_those_of_one_device(policy, specs):
    def train(grads, axes):
        tx = ours.clip_by_global_norm(policy, axis_name=axes)

        def step(state, size):
            updates, state = tx.update(jax.tree.map(lambda g: g * size, grads), state)
            return state, (updates, state.max_norm)

        return lax.scan(step, tx.init(grads), jnp.asarray([1.0, 3.0, jnp.nan, 2.0, 9.0]))

    state, (updates, limits) = train(jax.tree.map(jnp.asarray, GRADS), None)
    stacked = {name: P(None, *spec) for name, spec in specs.items()}
    sharded = jax.shard_map(partial(train, axes=BOTH), mesh=GRID, in_specs=(specs,), out_specs=(P(), (stacked, P())))
    found = jax.jit(sharded)(GRADS)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves((state, (updates, limits))), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


def test_a_policy_and_a_skip_take_one_small_collective_each():
    """A sum of two numbers a device, however many leaves there are: nothing is gathered, and no state is exchanged."""
    grads = {str(i): np.ones((16, 4), "float32") for i in range(40)}
    specs = {name: P(BOTH) if int(name) % 3 else P("data") for name in grads}
    clip = ours.clip_by_global_norm(AutoClip(window=4), axis_name=BOTH)
    for tx, count in (
        (clip, 1),
        (ours.skip_steps(optax.adam(0.1), SkipStep(1.0), axis_name=BOTH), 1),
        (ours.skip_steps(optax.chain(clip, optax.adam(0.1)), SkipStep(1.0), axis_name=BOTH), 2),
    ):

        def step(grads, tx=tx):
            return tx.update(grads, tx.init(grads), grads)[0]

        program = jax.jit(jax.shard_map(step, mesh=GRID, in_specs=(specs,), out_specs=specs)).lower(grads).compile()
        found = COLLECTIVE.findall(program.as_text())
        assert found == [("f32[8,2]{1,0}", "all-reduce")] * count


def test_all_devices_skip_the_same_steps():
    """Where the norm of one device is below the threshold and that of all above it; also sharded under ``jit``."""
    tx = ours.skip_steps(optax.sgd(1.0, momentum=0.9), SkipStep(threshold=NORM / 2), axis_name=BOTH)
    specs = {"w": P(BOTH), "b": P("data")}

    @jax.jit
    @partial(jax.shard_map, mesh=GRID, in_specs=(specs,), out_specs=(specs, P()))
    def step(grads):
        updates, state = tx.update(grads, tx.init(grads), grads)
        return updates, state._replace(inner_state=None)

    alone = ours.skip_steps(optax.sgd(1.0, momentum=0.9), SkipStep(threshold=NORM / 2))
    for size, skipped in ((1.0, True), (0.4, False)):
        grads = {name: np.float32(size) * x for name, x in GRADS.items()}
        updates, state = step(grads)
        assert bool(state.last_skipped) == skipped
        np.testing.assert_allclose(state.norm, size * NORM, rtol=1e-6)
        assert np.any(updates["w"]) != skipped
        placed = {name: jax.device_put(x, jax.NamedSharding(GRID, specs[name])) for name, x in grads.items()}
        moved, after = jax.jit(alone.update)(placed, alone.init(placed), placed)
        assert moved["w"].sharding.is_equivalent_to(placed["w"].sharding, 2)
        np.testing.assert_allclose(moved["w"], updates["w"], rtol=1e-6)
        np.testing.assert_allclose(after.norm, state.norm, rtol=1e-6)


def test_a_leaf_that_is_the_same_on_all_devices_stays_so():
    specs = {"w": P("data"), "b": P()}
    makers = (
        lambda axes: ours.clip_by_block_rms(0.3, axis_name=axes),
        lambda axes: ours.adaptive_grad_clip(0.1, axis_name=axes),
        lambda _: ours.clip(0.5),
    )

    def step(grads, tx):
        return tx.update(grads, tx.init(grads), grads)[0]

    for make in makers:
        want = step(GRADS, make(None))
        for axes in ((), "data"):
            inside = jax.shard_map(partial(step, tx=make(axes)), mesh=MESH, in_specs=(specs,), out_specs=specs)
            updates = jax.jit(inside)(GRADS)
            np.testing.assert_allclose(updates["b"], want["b"], rtol=1e-6)
            if axes:
                np.testing.assert_allclose(updates["w"], want["w"], rtol=1e-6)


@pytest.mark.parametrize("specs", [{"w": P(BOTH), "b": P("data")}, {"w": P("data"), "b": P()}])
def test_whole_leaves_and_units_are_clipped(specs):
    """By the root mean square, or unit by unit; the state tells of the whole, and is the same on all devices."""
    for make in (partial(ours.clip_by_block_rms, 0.3), partial(ours.adaptive_grad_clip, 0.1)):

        def step(grads, axes, make=make):
            tx = make(axis_name=axes)
            return tx.update(grads, tx.init(grads), jax.tree.map(jnp.cos, grads))

        inside = jax.shard_map(partial(step, axes=BOTH), mesh=GRID, in_specs=(specs,), out_specs=(specs, P()))
        for size in (1e-25, 1.0, 1e25):
            grads = {name: x * np.float32(size) for name, x in GRADS.items()}
            found, wanted = jax.jit(inside)(grads), step(jax.tree.map(jnp.asarray, grads), None)
            for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
                np.testing.assert_allclose(x, y, rtol=2e-6)


@pytest.mark.parametrize(
    "make",
    [
        ours.clip_by_global_norm,
        lambda limit: ours.clip_by_global_norm(ZClip(max_norm=limit)),
        ours.clip_by_block_rms,
        ours.adaptive_grad_clip,
        lambda limit: ours.skip_steps(optax.sgd(1.0), SkipStep(threshold=limit)),
    ],
)
def test_updates_that_are_split_over_axes_that_are_not_named(make):
    """Each device would clip by the norm of its own part, and nobody would notice."""
    tx = make(1.0)

    def step(grads):
        return tx.update(grads, tx.init(grads), grads)[0]

    specs = {"w": P("data", "model"), "b": P()}
    with pytest.raises(
        ValueError, match=r"updates\['w'\] varies over the mesh axes \['data', 'model'\].*axis_name=\(\)"
    ):
        jax.eval_shape(jax.shard_map(step, mesh=GRID, in_specs=(specs,), out_specs=specs), GRADS)
    for options in (
        {"in_specs": P(), "out_specs": P()},
        {"in_specs": P("data"), "out_specs": P("data"), "check_vma": False},
    ):
        jax.eval_shape(jax.shard_map(step, mesh=GRID, **options), GRADS)  # the same everywhere; not known


def test_where_a_part_of_the_mesh_is_manual_and_in_nested_shard_map():
    tx = ours.clip_by_block_rms(0.3, axis_name=())

    def loop(grads):
        return lax.pmax(LOOPS["scan"](lambda s: tx.update(grads, s, grads)[1], tx.init(grads)).norm, BOTH)

    def outer(grads):
        inner = jax.shard_map(loop, in_specs=P("model"), out_specs=P(), axis_names={"model"})
        return inner(grads)

    jax.eval_shape(jax.shard_map(outer, mesh=GRID, in_specs=P("data"), out_specs=P(), axis_names={"data"}), GRADS)


@pytest.mark.parametrize("loop", [loop for loop in LOOPS if loop != "cond"])  # in which some would wait for the others
def test_pmap(loop):
    x = KEY.standard_normal((8, 5)).astype("float32")
    for tx in (ours.clip_by_global_norm(1.0, axis_name="data"), ours.clip_by_block_rms(0.1)):

        def run(grads, tx=tx):
            return LOOPS[loop](lambda s: tx.update(grads, s, grads)[1], tx.init(grads))

        state = jax.pmap(run, axis_name="data")(x)
        assert state.norm.shape == (8,)
        assert set(state.step.tolist()) == {2 if loop == "cond after a step" else 3}


def test_arrays_that_carry_their_sharding_in_their_type():
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        grads = jax.device_put(jnp.asarray(GRADS["w"]), P("data", "model"))
        for tx in (ours.clip_by_global_norm(1.0), ours.clip_by_block_rms(0.1), ours.adaptive_grad_clip(0.1)):
            state = LOOPS["scan"](lambda s, tx=tx: tx.update(grads, s, grads)[1], tx.init(grads))
            np.testing.assert_allclose(state.norm, np.linalg.norm(GRADS["w"]), rtol=1e-6)
