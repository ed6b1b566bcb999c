"""Clipping each example by its own norm, on NumPy."""

import math

import ml_dtypes
import numpy as np
import pytest

import gradclip
from tests import exact


def oracle(leaves, max_norm):
    """Abadi et al. 2016, Algorithm 1, without the noise."""
    clipped, sums = 0, [exact.mpmath.matrix(1, max(1, leaf[0].size)) for leaf in leaves]
    for example in range(leaves[0].shape[0]):
        parts = [[float(v) for v in np.ravel(leaf[example])] for leaf in leaves]
        size = exact.norm([v for part in parts for v in part])
        clipped += size > max_norm
        factor = min(exact.mpmath.mpf(1), max_norm / size) if size else exact.mpmath.mpf(1)
        for total, part in zip(sums, parts, strict=True):
            for i, v in enumerate(part):
                total[i] += v * factor
    return [[float(v) for v in total] for total in sums], clipped


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("max_norm", [0.0, 1.5, 1e3])
def test_sums_of_clipped_examples(dtype, max_norm):
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal((6, *shape)).astype(dtype) for shape in ((3, 2), (), (4,))]
    want, count = oracle(grads, max_norm)
    got, clipped = gradclip.clip_per_example({"w": grads[:2], "b": grads[2]}, max_norm)
    assert int(clipped) == count
    assert clipped.shape == ()
    for leaf, total, like in zip((*got["w"], got["b"]), want, grads, strict=True):
        assert (leaf.shape, leaf.dtype) == (like.shape[1:], like.dtype)
        eps = float(ml_dtypes.finfo(dtype).eps)
        np.testing.assert_allclose(leaf.reshape(-1).astype(float), total, rtol=eps, atol=8 * max(eps * 1e-3, 1e-15))


def test_a_batch_of_any_size_uses_no_copy_of_it():
    rng = np.random.default_rng(1)
    grads = rng.standard_normal((40, 300, 100), dtype=np.float32)
    norms = np.sqrt(np.square(grads, dtype=float).sum(axis=(1, 2)))
    limit = float(np.median(norms))
    got, clipped = gradclip.clip_per_example(grads, limit)
    want = (grads * np.minimum(1, limit / norms)[:, None, None]).sum(axis=0)
    assert int(clipped) == 20
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_huge_example_does_not_drown_the_others():
    got, clipped = gradclip.clip_per_example(np.float32([[3e30, 4e30], [0.3, 0.4], [0, 0]]), 1.0)
    np.testing.assert_allclose(got, [0.9, 1.2], rtol=1e-6)
    assert int(clipped) == 1


def test_no_examples_and_no_leaves():
    got, clipped = gradclip.clip_per_example([np.ones((0, 3))], 1.0)
    np.testing.assert_array_equal(got[0], np.zeros(3))
    assert int(clipped) == 0
    assert gradclip.clip_per_example([], 1.0) == ([], 0)


def test_every_leaf_has_the_same_examples():
    with pytest.raises(
        ValueError, match=r"grads\['b'\] has shape \(3,\) and grads\['a'\] \(2, 2\), expected leaves whose"
    ):
        gradclip.clip_per_example({"a": np.ones((2, 2)), "b": np.ones(3)}, 1.0)
    with pytest.raises(ValueError, match=r"grads has shape \(\)"):
        gradclip.clip_per_example(np.array(1.0), 1.0)
    with pytest.raises(ValueError, match=r"max_norm=nan"):
        gradclip.clip_per_example(np.ones((2, 2)), math.nan)
