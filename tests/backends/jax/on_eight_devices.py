"""Sharded gradients, on eight virtual devices: run by test_mesh.py in a process of its own."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradclip.backends import jax as gj
from gradclip.backends.jax._ops import JaxOps

P = PartitionSpec
MESH = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
GRID = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
KEY = np.random.default_rng(0)
GRADS = {"w": KEY.standard_normal((16, 24)).astype("float32"), "b": KEY.standard_normal(8).astype("float32")}
NORM = float(np.sqrt(sum((x.astype("float64") ** 2).sum() for x in GRADS.values())))
SPECS = {"w": P("data", "model"), "b": P("model")}
COLLECTIVE = re.compile(r"= (\S+) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(")

KIND = re.compile(r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(")


def placed(mesh, specs, grads=GRADS):
    return {name: jax.device_put(x, NamedSharding(mesh, specs[name])) for name, x in grads.items()}


def collectives(compiled):
    """Return (shape, kind) of each collective outside of the rare branch."""
    text = compiled.as_text()
    entry = text[text.index("\nENTRY") :]
    return COLLECTIVE.findall(entry[: entry.index("\n}")]), COLLECTIVE.findall(text)


@pytest.mark.parametrize(
    "specs", [SPECS, {"w": P(None, "data"), "b": P()}, {"w": P(("data", "model")), "b": P("data")}]
)
@pytest.mark.parametrize("size", [1.0, 1e25, 1e-25])
@pytest.mark.parametrize("ord", [2.0, 3.0])
def test_sharded_gradients_have_the_norm_of_the_whole(specs, size, ord):
    grads = placed(GRID, specs, {name: x * np.float32(size) for name, x in GRADS.items()})
    alone = {name: jnp.asarray(x * np.float32(size)) for name, x in GRADS.items()}
    clipped, norm = jax.jit(partial(gj.clip_by_global_norm, ord=ord))(grads, size)
    want, norm_alone = gj.clip_by_global_norm(alone, size, ord=ord)
    np.testing.assert_allclose(norm, norm_alone, rtol=3e-7)
    for name, x in clipped.items():
        assert x.sharding.is_equivalent_to(grads[name].sharding, x.ndim)
        np.testing.assert_allclose(x, want[name], rtol=1e-6)


def test_one_small_collective_and_no_gradient_is_gathered():
    grads = placed(GRID, SPECS)
    program = jax.jit(lambda g: gj.clip_by_global_norm(g, 1.0)).lower(grads).compile()
    ordinary, every = collectives(program)
    assert {kind for _, kind in every} == {"all-reduce"}
    assert all(elements(shape) <= 2 for shape, _ in every)
    assert [kind for _, kind in ordinary] == ["all-reduce"]


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_as_on_accelerators_nothing_is_gathered_either(monkeypatch, size):
    monkeypatch.setattr(JaxOps, "_on_need", JaxOps._at_once)
    jax.clear_caches()
    grads = placed(GRID, SPECS, {name: x * np.float32(size) for name, x in GRADS.items()})
    inside = jax.shard_map(
        partial(gj.global_norm, axis_name=("data", "model")), mesh=GRID, in_specs=(SPECS,), out_specs=P()
    )
    for norm in (gj.global_norm, inside):
        program = jax.jit(norm).lower(grads).compile()
        np.testing.assert_allclose(program(grads), NORM * size, rtol=1e-6)
        assert set(KIND.findall(program.as_text())) == {"all-reduce"}
    jax.clear_caches()


def test_inside_shard_map_one_collective_of_two_numbers_a_device():
    @jax.jit
    @partial(jax.shard_map, mesh=MESH, in_specs=P("data"), out_specs=(P("data"), P()))
    def step(grads):
        return gj.clip_by_global_norm(grads, 1.0, axis_name="data")

    grads = placed(MESH, {"w": P("data"), "b": P("data")})
    clipped, norm = step(grads)
    np.testing.assert_allclose(norm, NORM, rtol=1e-6)
    np.testing.assert_allclose(clipped["w"], GRADS["w"] / NORM, rtol=1e-6)
    _, every = collectives(step.lower(grads).compile())
    assert [kind for _, kind in every] == ["all-reduce"]
    assert elements(every[0][0]) == 16


def elements(shape):
    return max(int(np.prod([int(n) for n in dims.split(",") if n])) for dims in re.findall(r"\[([\d,]*)\]", shape))


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_a_replicated_leaf_counts_once_in_shard_map(size):
    @jax.jit
    @partial(jax.shard_map, mesh=GRID, in_specs=({"w": P("data", "model"), "b": P("model")},), out_specs=P())
    def norms(grads):
        every = ("data", "model")
        one = gj.global_norm(grads, axis_name=every)
        return one, gj.leaf_norms(grads, axis_name=every), gj.norm_partial(grads, axis_name=every, ord=3).norm()

    whole, each, cubes = norms({name: jnp.asarray(x * np.float32(size)) for name, x in GRADS.items()})
    np.testing.assert_allclose(whole, NORM * size, rtol=1e-6)
    for name, x in GRADS.items():
        np.testing.assert_allclose(each[name], np.linalg.norm(x.astype("float64")) * size, rtol=1e-6)
    exact = sum((np.abs(x.astype("float64")) ** 3).sum() for x in GRADS.values()) ** (1 / 3)
    np.testing.assert_allclose(cubes, exact * size, rtol=1e-6)


def test_each_device_may_be_in_a_range_of_its_own():
    sizes = 10.0 ** np.asarray([-30, -20, -10, 0, 10, 19, 25, 30])
    norm = jax.jit(
        jax.shard_map(partial(gj.global_norm, axis_name="data"), mesh=MESH, in_specs=P("data"), out_specs=P())
    )
    for scale in (1.0, 1e-25, 1e-7):
        x = (sizes * scale).astype("float32")
        np.testing.assert_allclose(norm(x), np.linalg.norm(x.astype("float64")), rtol=1e-6)
    assert norm(np.zeros(8, "float32")) == 0
    assert jnp.isnan(norm(np.asarray([np.nan, *[1] * 7], "float32")))


def test_leaf_clips_in_shard_map():
    @jax.jit
    @partial(jax.shard_map, mesh=MESH, in_specs=P("data"), out_specs=P("data"))
    def step(grads):
        return gj.clip_by_norm(grads, 1.0, axis_name="data"), gj.clip_by_rms(grads, 0.3, axis_name="data")

    by_norm, by_rms = step(placed(MESH, {"w": P("data"), "b": P("data")}))
    want = gj.clip_by_norm(GRADS, 1.0), gj.clip_by_rms(GRADS, 0.3)
    for got, alone in zip((by_norm, by_rms), want, strict=True):
        for name in GRADS:
            np.testing.assert_allclose(got[name], alone[name], rtol=1e-6)


def test_derivatives_in_shard_map():
    norm = jax.shard_map(partial(gj.global_norm, axis_name="data"), mesh=MESH, in_specs=P("data"), out_specs=P())
    np.testing.assert_allclose(jax.jit(jax.grad(norm))(GRADS["w"]), jax.grad(gj.global_norm)(GRADS["w"]), rtol=1e-6)


def test_pmap():
    x = KEY.standard_normal((8, 5)).astype("float32")
    clipped, norm = jax.pmap(lambda g: gj.clip_by_global_norm(g, 1.0, axis_name="i"), axis_name="i")(x)
    np.testing.assert_allclose(norm, [np.linalg.norm(x)] * 8, rtol=1e-6)
    np.testing.assert_allclose(clipped, x / np.linalg.norm(x), rtol=1e-6)


def test_vmap_with_a_named_axis():
    x = KEY.standard_normal((8, 5)).astype("float32")
    norm = jax.vmap(lambda g: gj.global_norm(g, axis_name="i"), axis_name="i")(x)
    np.testing.assert_allclose(norm, [np.linalg.norm(x)] * 8, rtol=1e-6)


def test_each_leaf_by_itself_keeps_what_it_varies_over():
    """A leaf that is the same on all devices stays so where its coefficient does not depend on the others."""

    def step(grads):
        own = {"axis_name": ()}
        clips = (
            gj.clip_by_norm(grads, 1.0, **own),
            gj.clip_by_rms(grads, 0.3, **own),
            gj.adaptive_grad_clip(grads, grads, 0.1, **own),
        )
        return clips, gj.leaf_norms(grads, **own)["b"]

    specs = {"w": P("data"), "b": P()}
    sharded = jax.shard_map(step, mesh=MESH, in_specs=(specs,), out_specs=((specs,) * 3, P()))
    clips, norm = jax.jit(sharded)(placed(MESH, specs))
    np.testing.assert_allclose(norm, np.linalg.norm(GRADS["b"]), rtol=1e-6)
    for got, want in zip(clips, step(GRADS)[0], strict=True):
        np.testing.assert_allclose(got["b"], want["b"], rtol=1e-6)


@pytest.mark.parametrize("axis", [0, -1, None])
def test_units_that_are_split(axis):
    """Along a unit's axis; in each range; with derivatives. A leaf that is the same on all devices counts once."""
    specs = {"w": P("data") if axis != -1 else P(None, "data"), "b": P("data"), "c": P()}
    whole = {**GRADS, "c": GRADS["b"] * 2}
    params = jax.tree.map(np.cos, whole)

    def clip(grads, params, axes):
        return gj.adaptive_grad_clip(grads, params, 0.1, axis=axis, axis_name=axes)

    def total(grads, params, axes):
        parts = jax.tree.map(lambda x: jnp.sum(jnp.sin(x)), clip(grads, params, axes))
        return jax.lax.psum(parts["w"] + parts["b"], axes) + parts["c"] if axes else sum(jax.tree.leaves(parts))

    each = {"mesh": MESH, "in_specs": (specs, specs)}
    clips = jax.jit(jax.shard_map(partial(clip, axes="data"), out_specs=specs, **each))
    sums = jax.shard_map(partial(total, axes="data"), out_specs=P(), **each)
    for size in (1e-25, 1.0, 1e25):
        grads = {name: x * np.float32(size) for name, x in whole.items()}
        for name, x in clips(grads, params).items():
            np.testing.assert_allclose(x, clip(grads, params, None)[name], rtol=2e-6)
    found = jax.jit(jax.grad(sums))(whole, params)
    for name, x in jax.grad(partial(total, axes=None))(whole, params).items():
        np.testing.assert_allclose(found[name], x, rtol=1e-5, atol=1e-6)
    bad = clips({**whole, "b": np.asarray([np.nan, *[1] * 7], "float32")}, params)
    assert np.isnan(bad["b"]).all()
    assert np.isfinite(bad["w"]).all()


def test_the_root_mean_square_of_leaves_of_which_one_is_the_same_everywhere():
    specs = {"w": P("data", "model"), "b": P("data")}
    clip = partial(gj.clip_by_rms, max_rms=0.3, axis_name=("data", "model"))
    sharded = jax.jit(jax.shard_map(clip, mesh=GRID, in_specs=(specs,), out_specs=specs))
    want = gj.clip_by_rms(GRADS, 0.3)
    for name, x in sharded(GRADS).items():
        np.testing.assert_allclose(x, want[name], rtol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        gj.global_norm,
        gj.leaf_norms,
        lambda g: gj.clip_by_global_norm(g, 1.0),
        lambda g: gj.clip_by_norm(g, 1.0),
        lambda g: gj.clip_by_rms(g, 1.0),
        lambda g: gj.adaptive_grad_clip(g, g),
    ],
)
def test_leaves_that_are_split_over_axes_that_are_not_named(function):
    """Their norms would be those of one device's part."""

    def inside(grads):
        return function({"w": jnp.asarray(grads["w"]), "b": jax.lax.psum(grads["b"], "data")})

    specs = P("data")
    message = r"grads\['w'\] varies over the mesh axes \['data'\] and .*pass axis_name='data', or axis_name=\(\)"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(jax.shard_map(inside, mesh=MESH, in_specs=(specs,), out_specs=specs), GRADS)
    jax.eval_shape(jax.shard_map(function, mesh=MESH, in_specs=P(), out_specs=P()), GRADS)
    jax.eval_shape(jax.shard_map(function, mesh=MESH, in_specs=specs, out_specs=P(), check_vma=False), GRADS)


def test_an_axis_of_one_device_splits_nothing():
    """The part of a device is the whole there, so that norms are global; of two axes only the other is named."""
    grads, whole = jnp.arange(8.0), float(np.sqrt(140.0))
    alone = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    norm = jax.shard_map(lambda g: gj.global_norm(g)[None], mesh=alone, in_specs=P("data"), out_specs=P("data"))
    assert norm(grads) == pytest.approx(whole, rel=1e-6)
    both = jax.make_mesh((1, 8), ("one", "eight"), axis_types=(AxisType.Auto,) * 2)
    split = jax.shard_map(gj.global_norm, mesh=both, in_specs=P(("one", "eight")), out_specs=P())
    with pytest.raises(ValueError, match=r"varies over the mesh axes \['eight'\] and .*pass axis_name='eight'"):
        split(grads)


@pytest.mark.parametrize("clip", [gj.clip_by_norm, gj.clip_by_rms])
def test_donated_shards_that_lie_in_another_array_too(clip):
    x = jax.device_put(jnp.arange(1.0, 17.0), NamedSharding(MESH, P("data")))
    shards = [shard.data for shard in x.addressable_shards]
    whole = jax.make_array_from_single_device_arrays(x.shape, x.sharding, shards)
    want = clip([jnp.arange(1.0, 17.0)] * 2, 0.5)
    for got, right in zip(clip([x, whole], 0.5, donate=True), want, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-6)
    assert x.is_deleted()
