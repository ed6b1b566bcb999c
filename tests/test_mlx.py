"""MLX: laziness, transforms and policies on its arrays. The contract on them is conformance's target mlx.core."""

import doctest
import math
from pathlib import Path

import numpy as np
import pytest

import gradclip
from gradclip import policies

mx = pytest.importorskip("mlx.core", reason="MLX is not installed; `make frameworks` makes an environment with it")

GRADS = {"w": [[3.0, 0.0]], "b": [4.0]}


def grads(dtype=None):
    return {name: mx.array(values, dtype or mx.float32) for name, values in GRADS.items()}


def test_containers_and_scalars_are_mlx():
    clipped, norm = gradclip.clip_by_global_norm({"layers": [grads(), None]}, 1.0)
    assert norm.item() == 5
    assert (type(norm), norm.shape) == (mx.array, ())
    np.testing.assert_allclose(np.array(clipped["layers"][0]["w"]), [[0.6, 0]], rtol=1e-6)
    assert clipped["layers"][1] is None


@pytest.mark.parametrize("threshold", [1.0, math.inf, None])
def test_nothing_is_computed_before_a_value_is_read(threshold):
    """Under mx.compile, MLX raises an error if anything asks for a value."""

    def step(tree, limit):
        new, norm = gradclip.clip_by_global_norm(tree, threshold, nonfinite="zero")
        new = gradclip.clip_by_norm(gradclip.clip_by_value(new, 0.7), limit)
        new = gradclip.adaptive_grad_clip(new, tree, 0.5)
        gradclip.clip_by_global_norm_(new, 10.0)
        summed, count = gradclip.clip_per_example(new, limit)
        return new, norm, summed, count, gradclip.leaf_norms(new), gradclip.norm_partial(new).norm()

    compiled = mx.compile(step)
    for size in (1.0, 0.0, 1e30, math.nan):
        tree = {name: size * g for name, g in grads().items()}
        for one, other in zip(
            mx_leaves(compiled(tree, mx.array(2.0))), mx_leaves(step(tree, mx.array(2.0))), strict=True
        ):
            np.testing.assert_allclose(np.array(one), np.array(other), rtol=1e-6)


def mx_leaves(tree):
    if isinstance(tree, mx.array):
        return [tree]
    return [leaf for value in (tree.values() if isinstance(tree, dict) else tree) for leaf in mx_leaves(value)]


def test_a_clip_of_many_leaves_makes_a_graph_and_no_arrays():
    x = [mx.ones((1000, 1000)) for _ in range(4)]
    mx.eval(x)
    before = mx.get_active_memory()
    clipped, norm = gradclip.clip_by_global_norm([2 * g for g in x], 1.0)
    assert mx.get_active_memory() - before < 1e6
    assert norm.item() == 4000
    np.testing.assert_allclose(clipped[0][0, 0].item(), 1 / 2000, rtol=1e-6)


def test_in_place_keeps_the_arrays():
    tree = grads()
    arrays = dict(tree)
    norm = gradclip.clip_by_global_norm_(tree, 1.0)
    assert norm.item() == 5
    assert all(tree[name] is arrays[name] for name in tree)
    np.testing.assert_allclose(np.array(arrays["b"]), [0.8], rtol=1e-6)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64", "complex64"])
def test_dtypes_stay(name):
    (clipped,), norm = gradclip.clip_by_global_norm([mx.array([300.0] * 4, getattr(mx, name))], 1.0)
    assert clipped.dtype == getattr(mx, name)
    assert norm.dtype == (mx.float64 if name == "float64" else mx.float32)
    np.testing.assert_allclose(np.array(clipped.astype(mx.complex64)), 0.5, rtol=1e-2)


def test_float64_beside_float32():
    (one, other), norm = gradclip.clip_by_global_norm([mx.array([3.0]), mx.array([4.0], mx.float64)], 1.0)
    assert [one.dtype, other.dtype, norm.dtype] == [mx.float32, mx.float64, mx.float64]
    np.testing.assert_allclose([one.item(), other.item(), norm.item()], [0.6, 0.8, 5.0], rtol=1e-7)


POLICIES = [
    policies.Fixed(0.7),
    policies.Schedule(lambda step: 1.0 / (1 + step)),
    policies.ZClip(warmup_steps=2),
    policies.AutoClip(window=4),
    policies.QuantileClip(),
    policies.EmaClip(1.1),
    policies.AdaGC(warmup_steps=2),
    policies.SkipStep(sigma=1.5, window=4),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_policies_give_what_they_give_on_numpy(policy):
    ours, theirs = gradclip.Clipper(policy), gradclip.Clipper(policy)
    rng = np.random.default_rng(0)
    for size in (1, 2, 1.5, 30, 1):
        values = [size * rng.normal(size=s).astype("float32") for s in ((3,), (2, 2))]
        got, norm = ours([mx.array(v) for v in values])
        right, exact = theirs(values)
        np.testing.assert_allclose(norm.item(), exact, rtol=1e-6)
        assert bool(ours.skipped) == bool(theirs.skipped)
        for a, b in zip(got, right, strict=True):
            np.testing.assert_allclose(np.array(a), b, rtol=1e-5, atol=1e-7)


def test_errors():
    with pytest.raises(gradclip.NonFiniteError, match=r"grads\[0\] is NaN or inf"):
        gradclip.clip_by_global_norm([mx.array([math.nan])], 1.0, nonfinite="error")
    with pytest.raises(TypeError, match="expected arrays of one library"):
        gradclip.global_norm([mx.array([1.0]), np.ones(2)])
    with pytest.raises(TypeError, match="expected real or complex floating-point"):
        gradclip.global_norm([mx.array([1])])


def test_sums_are_added_in_a_tree():
    """MLX's own sum of these loses 4e-6 of it."""
    values = np.full(100_001, 2.0**-13, "float32")
    values[0] = 64
    right = math.sqrt(64.0**2 + 100_000 * 2.0**-26)
    assert gradclip.global_norm(mx.array(values)).item() == pytest.approx(right, rel=1e-6)
    values = np.random.default_rng(0).normal(size=(3, 40, 5)).astype("float32")
    from gradclip._mlx import mlx_namespace

    xp = mlx_namespace(mx)
    for axis in (None, 0, 1, -1, (0, 1), (1, 2), (0, 1, 2)):
        for keepdims in (False, True):
            got = np.array(xp.sum(mx.array(values), axis=axis, keepdims=keepdims))
            np.testing.assert_allclose(got, values.sum(axis=axis, keepdims=keepdims), rtol=1e-4, atol=1e-4)


def test_the_page_in_docs():
    page = Path(__file__).parents[1] / "docs/integrations/mlx.md"
    failed, attempted = doctest.testfile(str(page), module_relative=False)
    assert (failed, attempted > 0) == (0, True)
