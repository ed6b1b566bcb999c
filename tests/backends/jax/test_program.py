"""What is compiled, and how often: reads of the gradients, memory, compilations of eager calls."""

import jax
import jax.numpy as jnp
import optax
import pytest

from gradclip.backends import jax as gj
from gradclip.backends import optax as ours
from gradclip.backends.jax import _global

PARAMS = {"a": jnp.ones(1 << 18), "b": jnp.ones((512, 512))}
BYTES = sum(x.nbytes for x in jax.tree.leaves(PARAMS))


def compiled(tx):
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1)).lower(PARAMS, tx.init(PARAMS), PARAMS).compile()


def sum_of_squares():
    """The least that a norm needs: one read."""
    return jax.jit(lambda tree: sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree))).lower(PARAMS).compile()


def accessed(program):
    return program.cost_analysis()["bytes accessed"] / BYTES


def test_clip_and_adam_read_the_gradients_once_more_than_adam():
    adam = compiled(optax.adam(1e-3))
    clip = compiled(optax.chain(ours.clip_by_global_norm(1.0), optax.adam(1e-3)))
    # The analysis counts both ways of a condition: one more read is the rare one's.
    assert accessed(clip) - accessed(adam) == pytest.approx(2 * accessed(sum_of_squares()), abs=0.01)
    entry = clip.as_text().split("\nENTRY")[1].split("\n}")[0]
    for leaf in ("g__a__", "grads__a__"):
        uses = [line for line in entry.splitlines() if f"%{leaf}" in line.partition("(")[2] and " tuple(" not in line]
        assert not uses or len([line for line in uses if "parameter(" not in line]) == 3  # the norm, and Adam's moments


def test_on_an_accelerator_nothing_waits_for_a_condition():
    clip = jax.jit(lambda grads: gj.clip_by_global_norm(grads, 1.0)).trace(PARAMS)
    for platform, conditions in (("cpu", 2), ("cuda", 0), ("tpu", 0)):
        program = clip.lower(lowering_platforms=(platform,)).as_text()
        assert program.count("(tensor<i1>) -> tensor<i32>") == conditions, platform  # a truth that chooses a branch


def operations(clip, platform, *leaves):
    """Return the number of operations in the program that XLA is given."""
    program = jax.jit(clip).trace(list(leaves)).lower(lowering_platforms=(platform,)).as_text()
    return sum(" = " in line for line in program.splitlines())


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_a_small_leaf_more_is_few_operations_more(platform):
    mine, peer = ours.clip_by_global_norm(1.0), optax.clip_by_global_norm(1.0)
    small = [jnp.ones(64), jnp.ones((8, 8))] * 48
    counts = [
        [operations(lambda g, tx=tx: tx.update(g, tx.init(g))[0], platform, *some) for some in (small, small * 2)]
        for tx in (mine, peer)
    ]
    each, each_of_peer = ((twice - once) / len(small) for once, twice in counts)
    assert each < 8
    assert each < each_of_peer / 1.5


def test_no_copy_of_the_gradients_is_made():
    clip = compiled(optax.chain(ours.clip_by_global_norm(1.0), optax.adam(1e-3)))
    stored = sum_of_squares().memory_analysis().temp_size_in_bytes
    assert stored < 1 << 12 or stored > BYTES, "nothing, or all squares"
    assert clip.memory_analysis().temp_size_in_bytes - stored < 1 << 16
    # optax's quotient is kept between the norm and Adam's two moments:
    peer = compiled(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)))
    assert accessed(peer) > accessed(clip)


def test_eager_calls_are_compiled_once_for_a_structure_whatever_the_numbers():
    cache = _global._clip._plain
    grads = {"a": jnp.ones((3, 7)), "b": [jnp.ones(11)]}
    gj.clip_by_global_norm(grads, 1.0)
    before = cache._cache_size()
    for limit in (1.0, 2.0, 3.5):
        gj.clip_by_global_norm({"a": grads["a"] * limit, "b": [jnp.zeros(11)]}, limit)
    assert cache._cache_size() == before
    gj.clip_by_global_norm({"a": jnp.ones((3, 8)), "b": [jnp.ones(11)]}, 1.0)
    assert cache._cache_size() == before + 1
