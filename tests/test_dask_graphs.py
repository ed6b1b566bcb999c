"""Dask's graphs: how many operations a call makes, how often a chunk is read, and chunks that differ."""

import dask.array as da
import numpy as np
import pytest

import gradclip
from tests.test_dask_ops import IN_PLACE, NEED_LENGTHS, ORDERS, PURE, assert_close, lazy, numbers, read

__all__ = ["lazy"]  # the fixture that fails a test which computes too early

SPIKES = {
    "clip_spikes": lambda x: gradclip.clip_spikes([x], [x * x + 0.5], 0.25)[0],
    "clip_spikes_": lambda x: gradclip.clip_spikes_([x], [x * x + 0.5], 0.25),
}


@pytest.mark.parametrize("ord", ORDERS)
def test_the_graph_grows_with_the_chunks_and_not_faster(ord):
    """The nodes for each chunk are as many for a hundred chunks as for ten."""

    def nodes(n):
        x = da.from_array(np.arange(4.0 * n), chunks=4)
        return len(gradclip.clip_by_global_norm([x[x > 3]], 1.0, ord=ord)[0][0].dask)

    assert nodes(200) - nodes(100) <= (nodes(100) - nodes(10)) / 90 * 100 * 1.1


@pytest.mark.parametrize("clip", [gradclip.clip_by_global_norm, lambda *args: (gradclip.clip_by_norm(*args), None)])
def test_few_operations_for_each_array(clip):
    """To make an operation of Dask takes about a millisecond, whatever it does."""

    def names(number):
        arrays = [da.full((64, 64), float(i), chunks=(4, 8)) for i in range(number)]  # equal ones would be one
        clipped, norm = clip(arrays, 1.0)
        found = [*clipped] if norm is None else [*clipped, norm]
        return {name for x in found for name in x.__dask_graph__().layers}

    own = 1  # the array itself
    norms, merge, product = 1, 2, 1  # 128 chunks: 64 of them are merged at once
    chosen = 0 if clip is gradclip.clip_by_global_norm else 3  # the array's own coefficient, which is three arrays
    assert len(names(20)) - len(names(10)) == 10 * (own + norms + merge + product + chosen)


def most_layers(operations):
    """The operations of Dask's own that a call may make for an array, by the names of the functions.

    Those of an array and, if there are, of its parameters are 1 and 2; norms of several chunks are 3 (a norm for each
    chunk, two merges), and a coefficient of the array's own is 3.
    """
    return pytest.mark.parametrize(("name", "most"), operations.items())


@most_layers(
    {
        "clip_by_value": 2,
        "clip_by_value_": 3,
        "clip_spikes": 5,
        "clip_spikes_": 6,
        "clip_with_norm_": 3,
        "clip_by_global_norm_": 6,
        "clip_by_norm_": 9,
        "clip_by_rms": 8,
        "clip_by_rms_": 9,
        "clip_per_example": 7,
        "adaptive_grad_clip": 13,
        "adaptive_grad_clip_": 14,
    }
)
def test_operations_of_every_function(name, most):
    calls = PURE | NEED_LENGTHS | IN_PLACE | SPIKES | TOGETHER

    def layers(number):
        arrays = [da.full((64, 64), float(i), chunks=(4, 8)) for i in range(number)]
        made = [calls[name](x) for x in arrays] if name not in TOGETHER else calls[name](arrays)
        return {layer for x in (arrays if name.endswith("_") else made) for layer in x.__dask_graph__().layers}

    assert len(layers(20)) - len(layers(10)) <= 10 * most


TOGETHER = {  # what many arrays share, is made once
    "clip_by_global_norm_": lambda arrays: gradclip.clip_by_global_norm_(arrays, 0.25),
    "clip_by_norm_": lambda arrays: gradclip.clip_by_norm_(arrays, 0.25),
    "clip_by_rms": lambda arrays: gradclip.clip_by_rms(arrays, 0.25),
    "clip_by_rms_": lambda arrays: gradclip.clip_by_rms_(arrays, 0.25),
    "clip_with_norm_": lambda arrays: gradclip.clip_with_norm_(arrays, 0.25, 9.0),
    "clip_per_example": lambda arrays: gradclip.clip_per_example(arrays, 0.25)[0],
}


@pytest.mark.parametrize("name", PURE | NEED_LENGTHS | IN_PLACE | SPIKES)
def test_a_chunk_is_read_once(name):
    reads = []

    def block(x):
        reads.append(x.shape)
        return x

    values = numbers((8, 3), "float64")
    x = da.from_array(values, chunks=(2, 3)).map_blocks(block, dtype=float, meta=np.empty((0, 0)))
    clipped = (PURE | NEED_LENGTHS | IN_PLACE | SPIKES)[name](x)
    read(x if name.endswith("_") else clipped)
    assert reads == [(2, 3)] * 4


def test_chunks_of_parameters_and_of_moments_may_differ():
    grads, params = numbers((9, 4), "float64"), numbers((9, 4), "float64", seed=3)
    x, w = da.from_array(grads, chunks=(2, 3)), da.from_array(params, chunks=(5, 1))
    for axis in (None, 0, 1, (0, 1)):
        got = read(gradclip.adaptive_grad_clip([x], [w], 0.1, axis=axis))[0]
        np.testing.assert_allclose(got, gradclip.adaptive_grad_clip([grads], [params], 0.1, axis=axis), rtol=1e-14)
    got = read(gradclip.clip_spikes([x], [w * w], 0.5))[0]
    np.testing.assert_allclose(got, gradclip.clip_spikes([grads], [params**2], 0.5), rtol=1e-14)


def test_examples_over_arrays_with_other_chunks():
    leaves = [numbers((6, 4), "float32"), numbers(6, "float32", seed=1), numbers((6, 2, 3), "float32", seed=2)]
    arrays = [da.from_array(x, chunks=chunks) for x, chunks in zip(leaves, [(4, 1), 2, (3, 1, 2)], strict=True)]
    got, want = read(gradclip.clip_per_example(arrays, 2.0))[0], gradclip.clip_per_example(leaves, 2.0)
    assert int(got[1]) == int(want[1]) > 0
    for one, other in zip(got[0], want[0], strict=True):
        assert_close(one, other, "float32")


def test_thresholds_that_are_arrays_of_dask():
    grads, params = numbers((6, 4), "float64"), numbers((6, 4), "float64", seed=1)
    x, w = da.from_array(grads, chunks=2), da.from_array(params, chunks=2)
    limit, eps = da.from_array(np.asarray(0.25)), da.from_array(np.asarray(0.5))
    got = read(
        gradclip.adaptive_grad_clip([x], [w], limit, eps=eps)[0],
        gradclip.clip_per_example([x], limit)[0][0],
        gradclip.clip_spikes([x], [w * w], limit)[0],
    )
    want = [
        gradclip.adaptive_grad_clip([grads], [params], 0.25, eps=0.5)[0],
        gradclip.clip_per_example([grads], 0.25)[0][0],
        gradclip.clip_spikes([grads], [params**2], 0.25)[0],
    ]
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14)
