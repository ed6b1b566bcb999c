"""float0, the derivative by integers: NumPy arrays outside of tracing and traced ones within; they pass through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradclip.backends import jax as gj
from gradclip.backends import optax as ours

PARAMS = {"w": jnp.asarray([1.0, 2.0, 3.0]), "i": jnp.arange(3)}
FUNCTIONS = {
    "norm": gj.global_norm,
    "leaf norms": gj.leaf_norms,
    "partial": gj.norm_partial,
    "global norm": lambda g: gj.clip_by_global_norm(g, 1.0, nonfinite="zero", scale=2.0),
    "by norm": lambda g: gj.clip_by_norm(g, 1.0),
    "rms": lambda g: gj.clip_by_rms(g, 0.5),
    "value": lambda g: gj.clip_by_value(g, 1.0),
    "known norm": lambda g: gj.clip_with_norm(g, 1.0, 100.0),
    "adaptive": lambda g: gj.adaptive_grad_clip(g, PARAMS, 0.1),
}
TRANSFORMATIONS = {
    "clip": ours.clip(1.0),
    "clip_by_global_norm": ours.clip_by_global_norm(1.0),
    "clip_by_block_rms": ours.clip_by_block_rms(0.5),
    "adaptive_grad_clip": ours.adaptive_grad_clip(0.1),
}
for name, tx in TRANSFORMATIONS.items():
    FUNCTIONS[name] = lambda g, tx=tx: tx.update(g, tx.init(PARAMS), PARAMS)
    FUNCTIONS[name + ", begun anew"] = lambda g, tx=tx: tx.update(g, None, PARAMS)
PER_EXAMPLE = {
    "per example": lambda g: gj.clip_per_example(g, 1.0),
    "optax, per example": lambda g: ours.per_example_global_norm_clip(g, 1.0),
    "optax, by layer": lambda g: ours.per_example_layer_norm_clip(g, 1.0),
}
WAYS = {
    "jit": jax.jit,
    "remat": jax.checkpoint,
    "jit of remat": lambda f: jax.jit(jax.checkpoint(f)),
    "scan": lambda f: lambda p: first(jax.lax.scan(lambda c, _: (c, f(p)), 0, length=2)[1]),
    "cond": lambda f: lambda p: jax.lax.cond(p["w"][0] > 0, f, f, p),
    "vmap": lambda f: lambda p: first(jax.vmap(f)(twice(p))),
    "jit of vmap": lambda f: lambda p: first(jax.jit(jax.vmap(f))(twice(p))),
}


def twice(tree):
    return jax.tree.map(lambda x: jnp.stack([x, x]), tree)


def first(tree):
    return jax.tree.map(lambda x: x[0], tree)


def gradient(params):
    return jax.grad(lambda p: jnp.sum(30 * p["w"]), allow_int=True)(params)


def of_examples(params):
    return jax.vmap(gradient)(twice(params))


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        if x.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(x, y, rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float0_passes_through(name, way):
    function = FUNCTIONS[name]
    assert_same(WAYS[way](lambda p: function(gradient(p)))(PARAMS), function(gradient(PARAMS)))


@pytest.mark.parametrize("way", [way for way in WAYS if "vmap" not in way])
@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_of_examples_it_is_added_up(name, way):
    function = PER_EXAMPLE[name]
    want = function(of_examples(PARAMS))
    assert (want[0]["i"].shape, want[0]["i"].dtype) == ((3,), jax.dtypes.float0)
    assert_same(WAYS[way](lambda p: function(of_examples(p)))(PARAMS), want)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float0_from_outside(name):
    """As an argument of a compiled function, and as what a loop carries."""
    grads = gradient(PARAMS)
    want = FUNCTIONS[name](grads)
    assert_same(jax.jit(FUNCTIONS[name])(grads), want)
    assert_same(first(jax.lax.scan(lambda g, _: (g, FUNCTIONS[name](g)), grads, length=2)[1]), want)
    assert jax.tree.structure(jax.eval_shape(FUNCTIONS[name], grads)) == jax.tree.structure(want)


def test_the_very_array_comes_back_outside_of_tracing():
    grads = gradient(PARAMS)
    assert gj.clip_by_global_norm(grads, 1.0)[0]["i"] is grads["i"]
    assert gj.global_norm({"i": grads["i"]}) == 0
