"""Norms of pytrees, against exact arithmetic."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradclip.backends import jax as gj
from tests import exact
from tests.backends.jax.trees import MAKERS, make, numbers

pytestmark = pytest.mark.usefixtures("way")

ORDERS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 7.5, math.inf)


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_norm_is_that_of_all_leaves_end_to_end(dtype, ord):
    key = np.random.default_rng(0)
    values = key.standard_normal((2, 40)) * [[1.0], [1e-3]]
    tree = [jnp.asarray(v + 1j * v[::-1] if dtype == "complex64" else v).astype(dtype) for v in values]
    norm = gj.global_norm(tree, ord=ord)
    assert norm.dtype == jnp.float32
    assert norm.shape == ()
    assert exact.relative_error(norm, exact.norm(numbers(tree), ord)) < 1e-6
    for x, one in zip(tree, gj.leaf_norms(tree, ord=ord), strict=True):
        assert exact.relative_error(one, exact.norm(numbers(x), ord)) < 1e-6


@pytest.mark.parametrize("ord", ORDERS)
def test_float64_has_its_precision(ord):
    with jax.enable_x64(True):
        tree = [jnp.asarray(np.random.default_rng(0).standard_normal(300)), jnp.ones(3, jnp.float32)]
        norm = gj.global_norm(tree, ord=ord)
        assert norm.dtype == jnp.float64
        assert exact.relative_error(norm, exact.norm(numbers(tree), ord)) < 1e-14
        assert [x.dtype.name for x in gj.leaf_norms(tree, ord=ord)] == ["float64", "float32"]


@pytest.mark.parametrize("kind", MAKERS)
def test_every_pytree_has_a_norm(kind):
    tree = make(kind)
    assert exact.relative_error(gj.global_norm(tree), exact.norm(numbers(tree))) < 1e-6


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("ord", [1.0, 2.0])
@pytest.mark.parametrize("shape", [(1 << 24,), (4095, 4097), (1 << 20, 16)])
def test_sums_of_equal_numbers_stay_exact(shape, ord, x64):
    # Adding 2**24 equal numbers one by one in float32 is off by percents: the compiler must add in a tree.
    with jax.enable_x64(x64):
        norm = gj.global_norm(jnp.full(shape, 0.1, jnp.float32), ord=ord)
    one = exact.norm([float(np.float32(0.1))])
    assert exact.relative_error(norm, one * exact.norm([1.0] * 16, ord) * (math.prod(shape) / 16) ** (1 / ord)) < 1e-6


def test_a_thousand_leaves_are_as_exact_as_one():
    tree = list(jnp.full((1000, 8), 0.3, jnp.float16))
    assert exact.relative_error(gj.global_norm(tree), exact.norm(numbers(tree))) < 1e-6


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("size", [1e-37, 1e-30, 1e-24, 1e-15, 1e-8, 1e8, 1e15, 1e19, 1e25, 1e30, 1e37])
def test_any_magnitude(size, ord):
    tree = {"a": jnp.asarray(np.array([1.0, -2.0, 0.5]) * size, jnp.float32), "b": jnp.asarray(0.25 * size)}
    whole = exact.norm(numbers(tree), ord)
    if whole < 3e38:
        assert exact.relative_error(gj.global_norm(tree, ord=ord), whole) < 1e-6
    a, b = (exact.norm(numbers(x), ord) for x in (tree["a"], tree["b"]))
    norms = gj.leaf_norms({**tree, "zero": jnp.zeros(3)}, ord=ord)
    if a < 3e38:
        assert exact.relative_error(norms["a"], a) < 1e-6
    assert exact.relative_error(norms["b"], b) < 1e-6
    assert norms["zero"] == 0


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e-150, 1e150, 1e200, 1e300])
def test_any_magnitude_in_float64(size):
    with jax.enable_x64(True):
        tree = [jnp.asarray([3.0 * size, 4.0 * size]), jnp.asarray([1.0 * size])]
        assert exact.relative_error(gj.global_norm(tree), exact.norm(numbers(tree))) < 1e-14


@pytest.mark.parametrize("size", [2.0**-125, 2.0**-90, 2.0**-50, 1.0, 2.0**50, 2.0**63, 2.0**66, 2.0**90, 2.0**120])
def test_partials_of_any_magnitudes_merge(size):
    one, other = jnp.full(7, 2.0**62), jnp.asarray([size, 0.0])
    merged = gj.norm_partial(one).merge(gj.norm_partial(other)).merge(gj.norm_partial(jnp.zeros(2)))
    assert exact.relative_error(merged.norm(), exact.norm([*numbers(one), *numbers(other)])) < 1e-6
    tiny = gj.norm_partial(jnp.zeros(3)).merge(gj.norm_partial(other))
    assert exact.relative_error(tiny.norm(), exact.norm(numbers(other))) < 1e-6


def test_a_norm_beyond_float32_is_inf_and_its_partial_is_right():
    x = jnp.full(4, 3e38)
    assert gj.global_norm(x) == jnp.inf
    partial = gj.norm_partial(x)
    stands = exact.stands_for(partial.scale, partial.total, 2.0)
    assert exact.relative_error(stands, exact.norm(numbers(x))) < 1e-6


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("ord", ORDERS)
def test_what_is_not_finite_shows(bad, ord):
    norm = gj.global_norm([jnp.ones(3), jnp.asarray([1.0, bad])], ord=ord)
    assert jnp.isnan(norm) if math.isnan(bad) else norm == jnp.inf


@pytest.mark.parametrize("tree", [{}, [], (), None, [None, {}], [jnp.zeros(0)], {"a": jnp.zeros((0, 3)), "b": None}])
@pytest.mark.parametrize("ord", [0.5, 2.0, math.inf])
def test_nothing_has_norm_zero(tree, ord):
    norm = gj.global_norm(tree, ord=ord)
    assert isinstance(norm, jax.Array)
    assert norm == 0
    assert gj.norm_partial(tree, ord=ord).norm() == 0
    assert jax.tree.structure(gj.leaf_norms(tree, ord=ord)) == jax.tree.structure(tree)


def test_a_leaf_that_is_passed_twice_is_two_leaves_as_everywhere_in_jax():
    x = jnp.asarray([3.0, 4.0])
    assert gj.global_norm([x, x]) == jnp.sqrt(50.0)


def test_numpy_leaves_are_taken_and_given_back_as_jax_arrays():
    clipped, norm = gj.clip_by_global_norm({"a": np.float32([3.0, 4.0])}, 2.5)
    assert isinstance(clipped["a"], jax.Array)
    assert norm == 5
    assert clipped["a"].tolist() == [1.5, 2.0]


@pytest.mark.parametrize(
    ("leaf", "what"),
    [
        (jnp.ones(2, jnp.int32), r"grads\['a'\]\[1\] has dtype int32"),
        (jnp.ones(2, bool), r"grads\['a'\]\[1\] has dtype bool"),
        (jax.random.key(0), r"grads\['a'\]\[1\]"),
        (1.0, r"grads\['a'\]\[1\] is a float"),
        ("text", r"grads\['a'\]\[1\] is a str"),
        (iter([]), r"grads\['a'\]\[1\] is a list_iterator.*pass list"),
        (np.array(["x"]), r"grads\['a'\]\[1\] has dtype"),
    ],
)
@pytest.mark.filterwarnings("ignore:Python iterable type")  # JAX's own, of the iterator
def test_what_is_no_gradient_is_refused_with_its_path(leaf, what):
    for function in (gj.global_norm, gj.leaf_norms, lambda g: gj.clip_by_global_norm(g, 1.0), gj.norm_partial):
        with pytest.raises(TypeError, match=what):
            function({"a": [jnp.ones(2), leaf], "b": jnp.ones(3)})


def test_arrays_of_another_framework_are_refused_with_the_remedy():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"grads\[0\] is a torch.Tensor, expected a JAX or NumPy array; convert"):
        gj.global_norm([torch.ones(2)])


@pytest.mark.parametrize("ord", [0.0, -1.0, math.nan])
def test_orders_that_are_no_norms_are_refused(ord):
    with pytest.raises(ValueError, match="ord"):
        gj.global_norm([jnp.ones(2)], ord=ord)


@pytest.mark.parametrize("axis_name", [1, ("a", 2), {"a"}])
def test_axis_names_are_checked(axis_name):
    with pytest.raises(TypeError, match="expected the name of a mesh axis"):
        gj.global_norm([jnp.ones(2)], axis_name=axis_name)
