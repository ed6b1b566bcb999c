"""Forward and reverse mode, first and second order, at zero and elsewhere."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from gradclip.backends import jax as gj

X = np.random.default_rng(0).standard_normal(6)
WEIGHTS = np.arange(6.0)
FUNCTIONS = {
    "norm": lambda x: gj.global_norm([x[:2], x[2:]]),
    "norm, order 1": lambda x: gj.global_norm([x[:2], x[2:]], ord=1),
    "norm, order 1.5": lambda x: gj.global_norm([x[:2], x[2:]], ord=1.5),
    "norm, order 3": lambda x: gj.global_norm([x[:2], x[2:]], ord=3),
    "norm, order inf": lambda x: gj.global_norm([x[:2], x[2:]], ord=math.inf),
    "leaf norms": lambda x: sum(gj.leaf_norms([x[:2], x[2:]])),
    "complex": lambda x: gj.global_norm([x[:3] + 1j * x[3:]]),
    "value": lambda x: gj.clip_by_value(x, 0.5) @ WEIGHTS,
    "by norm": lambda x: sum(jnp.sum(y**3) for y in gj.clip_by_norm([x[:2], x[2:]], 0.7)),
    "global": lambda x: gj.clip_by_global_norm(x, 0.7)[0] @ WEIGHTS,
    "global, not clipped": lambda x: gj.clip_by_global_norm(x, 1e3)[0] @ WEIGHTS**2,
    "global, order 3": lambda x: gj.clip_by_global_norm(x, 0.7, ord=3, eps=0.1)[0] @ WEIGHTS,
    "known norm": lambda x: gj.clip_with_norm(x, 0.7, gj.global_norm(x)) @ WEIGHTS,
    "rms": lambda x: gj.clip_by_rms(x, 0.2) @ WEIGHTS,
    "adaptive": lambda x: gj.adaptive_grad_clip(x, jnp.asarray(WEIGHTS), 0.1) @ WEIGHTS,
    "per example": lambda x: jnp.sum(gj.clip_per_example(x.reshape(3, 2), 0.5)[0] ** 2),
    "merged": lambda x: gj.norm_partial(x[:2]).merge(gj.norm_partial(x[2:])).norm(),
    "threshold": lambda x: gj.clip_by_global_norm(jnp.asarray(WEIGHTS), jnp.abs(x[0]))[0] @ WEIGHTS,
}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_finite_differences_and_finite_at_zero(name):
    f, h = FUNCTIONS[name], 1e-5
    both = jax.jit(lambda x: (f(x), jax.grad(f)(x), jax.jacfwd(f)(x), jax.hessian(f)(x)))
    with jax.enable_x64(True):
        _, reverse, forward, hessian = both(jnp.asarray(X))
        steps = [(both(jnp.asarray(X + h * e)), both(jnp.asarray(X - h * e))) for e in np.eye(6)]
        first = [(up[0] - down[0]) / (2 * h) for up, down in steps]
        second = [(up[1] - down[1]) / (2 * h) for up, down in steps]
        np.testing.assert_allclose(reverse, first, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(forward, reverse, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(hessian, second, rtol=1e-5, atol=1e-6)
        for x in (np.zeros(6), np.asarray([0.0, 0.0, 1.0, -2.0, 0.0, 1.0])):
            assert all(bool(jnp.isfinite(d).all()) for d in both(jnp.asarray(x)))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [1e-200, 1e200])
@pytest.mark.parametrize("name", ["norm", "norm, order 1", "norm, order 3", "leaf norms", "complex", "merged"])
def test_derivatives_are_right_at_any_magnitude(name, size):
    with jax.enable_x64(True):
        x, gradient = jnp.asarray(X), jax.jit(jax.grad(FUNCTIONS[name]))
        np.testing.assert_allclose(gradient(x * size), gradient(x), rtol=1e-9)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("order", [1, 2])
def test_derivatives_are_optax_s_where_optax_is_right(size, order):
    tx = optax.clip_by_global_norm(1.0)
    x, weights = jnp.asarray(X * size, jnp.float32), jnp.asarray(WEIGHTS, jnp.float32)
    derive = (lambda f: jax.jit(jax.grad(f))) if order == 1 else (lambda f: jax.jit(jax.hessian(f)))
    ours = derive(lambda x: gj.clip_by_global_norm([x], 1.0)[0][0] @ weights)(x)
    theirs = derive(lambda x: tx.update([x], tx.init(None))[0][0] @ weights)(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=float(jnp.abs(theirs).max()) * 1e-5)


@pytest.mark.parametrize("ord", [0.5, 1.0, 1.5, 2.0, 3.0, math.inf])
def test_derivatives_of_low_orders_are_finite_beside_zeros(ord):
    gradient = jax.jit(jax.grad(lambda x: gj.global_norm(x, ord=ord)))(jnp.asarray([0.0, 2.0, -1.0]))
    assert jnp.isfinite(gradient).all()


def test_meta_gradients_through_steps_of_clipped_descent():
    def outer(rate):
        def step(w, _):
            grads = jax.grad(lambda w: jnp.sum(jnp.cosh(w)))(w)
            return w - rate * gj.clip_by_global_norm(grads, 0.5)[0], None

        return jnp.sum(jax.lax.scan(step, jnp.asarray([1.0, -2.0]), None, length=4)[0] ** 2)

    with jax.enable_x64(True):
        check_grads(jax.jit(outer), (0.3,), order=2, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)


def test_remat_and_vmap_of_gradients():
    def loss(x):
        return jnp.sum(gj.clip_by_global_norm(jnp.sin(x), 0.5)[0] ** 3)

    x = jnp.asarray(np.stack([X, X * 0, X * 30]), jnp.float32)
    want = jnp.stack([jax.jit(jax.grad(loss))(row) for row in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(jax.checkpoint(loss))))(x), want, rtol=1e-5, atol=1e-7)
