"""The gradient sets are what they are called."""

import numpy as np
import pytest

from benchmarks import sets


@pytest.mark.parametrize(
    ("gradients", "leaves", "elements"),
    [
        (sets.GPT2_SMALL, 148, 124_439_808),
        (sets.RESNET50, 161, 25_557_032),
        (sets.MLP, 6, 235_146),
        (sets.MANY_SMALL, 1000, 64_000),
        (sets.HUNDRED_SMALL, 100, 6_400),
        (sets.ONE_LARGE, 1, 1 << 26),
    ],
)
def test_counts(gradients, leaves, elements):
    assert len(gradients.shapes) == leaves
    assert gradients.size == elements


def test_one_large_leaf_is_256_mb_in_float32():
    assert sets.ONE_LARGE.size * 4 == 256 * 2**20


def test_gpt2_small_has_its_embeddings_and_its_last_norm():
    assert sets.GPT2_SMALL.shapes[:2] == ((50257, 768), (1024, 768))
    assert sets.GPT2_SMALL.shapes[-2:] == ((768,), (768,))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_values_are_seeded_and_of_the_size_of_gradients(dtype):
    leaves = sets.values(sets.MLP, dtype)
    assert [x.shape for x in leaves] == list(sets.MLP.shapes)
    assert {x.dtype.name for x in leaves} == {dtype}
    for x, same in zip(leaves, sets.values(sets.MLP, dtype), strict=True):
        np.testing.assert_array_equal(x, same)
        assert 5e-4 < float(np.std(x.astype(np.float64))) < 3e-2


def test_a_leaf_larger_than_the_block_is_filled_to_its_end():
    (leaf,) = sets.values(sets.GradientSet("large", (((1 << 20) + 100, 2),)), "float32")
    assert np.count_nonzero(leaf) > 0.999 * leaf.size


def test_shrunk_gradients_have_few_leaves_of_as_many_axes():
    shrunk = sets.RESNET50.shrunk(parts=128, most=6)
    assert [len(shape) for shape in shrunk.shapes] == [len(shape) for shape in sets.RESNET50.shapes[:6]]
    assert shrunk.size < 2000
