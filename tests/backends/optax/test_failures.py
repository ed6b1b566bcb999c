"""Where optax is wrong, this is right: each failure is shown with optax itself, then with the adapter."""

import jax
import jax.numpy as jnp
import optax
import pytest

from gradclip.backends import jax as gj
from gradclip.backends import optax as ours
from tests import exact
from tests.backends.jax.trees import numbers

optax_norm = optax.tree.norm if hasattr(optax, "tree") else optax.global_norm  # the name before Optax 0.2.5


def step(tx, updates, params=None):
    return tx.update(updates, tx.init(updates), params)


@pytest.mark.parametrize("count", [1000, 4000])
def test_thousands_of_bfloat16_leaves(count):
    # Leaves of norm 1: their squares are added up in bfloat16, which has no 257 after 256.
    leaves = [jnp.full(16, 0.25, jnp.bfloat16)] * count
    with jax.disable_jit():  # one by one, which spares the compilation
        assert float(optax_norm(leaves)) == 16
        assert exact.relative_error(gj.global_norm(leaves), exact.norm([1.0] * count)) < 1e-6


def test_float16_whose_squares_overflow():
    leaves = jnp.full(4, 300.0, jnp.float16)
    assert step(optax.clip_by_global_norm(1.0), leaves)[0].tolist() == [0.0] * 4
    updates, state = step(ours.clip_by_global_norm(1.0), leaves)
    assert updates.tolist() == [0.5] * 4
    assert state.norm == 600


def test_zero_over_zero():
    # select(norm < max_norm): a threshold of zero divides zero by zero.
    leaves = [jnp.zeros(3)]
    assert jnp.isnan(step(optax.clip_by_global_norm(0.0), leaves)[0][0]).all()
    updates, state = step(ours.clip_by_global_norm(0.0), leaves)
    assert updates[0].tolist() == [0.0] * 3
    assert state.clipped == 0


def test_the_gradient_of_the_norm_at_zero():
    zeros = [jnp.zeros(3), jnp.zeros(())]
    assert jnp.isnan(jax.grad(optax_norm)(zeros)[0]).all()
    assert set(numbers(jax.grad(gj.global_norm)(zeros))) == {0.0}


def test_the_gradient_of_a_clip_at_zero():
    def loss(tx, x):
        return sum(jnp.sum(u) for u in step(tx, [x, 2 * x])[0])

    zeros = jnp.zeros(3)
    assert jnp.isnan(jax.grad(loss, argnums=1)(optax.clip_by_global_norm(1.0), zeros)).all()
    assert jax.grad(loss, argnums=1)(ours.clip_by_global_norm(1.0), zeros).tolist() == [3.0] * 3


@pytest.mark.parametrize("size", [1e20, 1e30, 3e38])
def test_float32_whose_squares_overflow(size):
    leaves = [jnp.full(4, size, jnp.float32)]
    assert step(optax.clip_by_global_norm(1.0), leaves)[0][0].tolist() == [0.0] * 4
    assert step(ours.clip_by_global_norm(1.0), leaves)[0][0].tolist() == [0.5] * 4


def test_float32_whose_squares_underflow():
    leaves = [jnp.full(4, 1e-25, jnp.float32)]
    assert step(optax.clip_by_global_norm(1e-26), leaves)[0][0].tolist() == [leaves[0][0]] * 4
    assert step(ours.clip_by_global_norm(1e-26), leaves)[0][0].tolist() == pytest.approx([5e-27] * 4)


def test_nothing_exposed_the_norm():
    assert step(optax.clip_by_global_norm(1.0), jnp.asarray([3.0, 4.0]))[1] == optax.EmptyState()
    state = step(ours.clip_by_global_norm(1.0), jnp.asarray([3.0, 4.0]))[1]
    assert (float(state.norm), int(state.clipped)) == (5.0, 1)
    assert float(state.coefficient) == pytest.approx(0.2)


def test_a_negative_threshold():
    assert step(optax.clip_by_global_norm(-1.0), jnp.asarray([3.0, 4.0]))[0].tolist() == pytest.approx([-0.6, -0.8])
    with pytest.raises(ValueError, match=r"max_norm=-1\.0, expected a number >= 0"):
        ours.clip_by_global_norm(-1.0)


def test_the_threshold_in_low_precision():
    # The coefficient is rounded to bfloat16 there, and the norm comes out wrong by parts of a percent.
    leaves = [jnp.full(1 << 12, 0.37, jnp.bfloat16)]
    after = [exact.norm(numbers(step(lib.clip_by_global_norm(1.0), leaves)[0])) for lib in (optax, ours)]
    assert abs(after[1] - 1) <= abs(after[0] - 1) + 1e-6
    assert abs(after[1] - 1) < 2.0**-9
