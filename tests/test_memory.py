"""Leaves that share memory: found before anything is written."""

import numpy as np
import pytest

import gradclip
from gradclip._memory import in_byte_order, overlapping_pair, overlaps_itself

CLIPS = [
    lambda g: gradclip.clip_by_global_norm_(g, 0.1),
    lambda g: gradclip.clip_by_norm_(g, 0.1),
    lambda g: gradclip.clip_by_rms_(g, 0.1),
    lambda g: gradclip.clip_by_value_(g, 0.1),
    lambda g: gradclip.adaptive_grad_clip_(g, g, 0.1),
    lambda g: gradclip.clip_with_norm_(g, 0.1, 100.0),
]


@pytest.mark.parametrize("clip", CLIPS)
def test_overlapping_leaves_are_refused_before_any_write(clip):
    base = np.ones(10)
    apart = np.ones(3)
    for leaves in ([apart, base[:6], base[5:]], [base, apart, base[::2]], [base[1:], base[:-1]]):
        with pytest.raises(ValueError, match=r"grads\[\d\] and grads\[\d\] overlap in memory.*be scaled twice"):
            clip(leaves)
    assert (base == 1).all()
    assert (apart == 1).all()


@pytest.mark.parametrize("clip", CLIPS)
def test_a_leaf_that_overlaps_itself_is_refused(clip):
    base = np.ones(10)
    rows = np.lib.stride_tricks.as_strided(base, (4, 7), (8, 8))
    same = np.lib.stride_tricks.as_strided(base, (3, 10), (0, 8))
    for leaf in (rows, same):
        with pytest.raises(
            ValueError, match=r"grads\[0\] overlaps itself in memory.*pass a copy, or use gradclip\.\w+\(\)"
        ):
            clip([leaf])
    assert (base == 1).all()


@pytest.mark.parametrize("clip", CLIPS)
def test_read_only_arrays_are_refused_by_the_name_of_the_pure_function(clip):
    frozen, free = np.ones(5), np.ones(5)
    frozen.setflags(write=False)
    for leaf in (frozen, np.broadcast_to(np.ones(1), (5,)), np.float64(3)):
        with pytest.raises(
            TypeError, match=r"grads\[1\] is an? \w+ that cannot be written.*use gradclip\.[a-z_]+[a-z]\(\)"
        ):
            clip([free, leaf])
    assert (free == 1).all()


def test_views_that_interleave_without_sharing_are_fine():
    base = np.ones((6, 8))
    leaves = [
        base[::2, :3],
        base[1::2, :3],
        base[:, 3:],
    ]
    assert overlapping_pair(leaves) is None
    gradclip.clip_by_global_norm_(leaves, 1.0)
    np.testing.assert_allclose(np.linalg.norm(base), 1.0)


def test_broadcast_leaves_count_every_element_in_pure_functions():
    leaf = np.broadcast_to(np.float32(0.5), (4, 4))
    assert gradclip.global_norm(leaf) == 2
    np.testing.assert_allclose(gradclip.clip_by_global_norm(leaf, 1.0)[0], 0.25)


def test_torch_and_strict_arrays_are_compared_too():
    torch, strict = pytest.importorskip("torch"), pytest.importorskip("array_api_strict")
    base = torch.ones(10)
    with pytest.raises(ValueError, match=r"grads\[0\] and grads\[1\] overlap"):
        gradclip.clip_by_global_norm_([base[:6], base[5:]], 0.1)
    with pytest.raises(ValueError, match=r"grads\[0\] overlaps itself"):
        gradclip.clip_by_global_norm_([torch.ones(1).expand(4)], 0.1)
    whole = strict.ones(10)
    with pytest.raises(ValueError, match=r"grads\[0\] and grads\[1\] overlap"):
        gradclip.clip_by_global_norm_([whole[:6], whole[5:]], 0.1)
    assert (base == 1).all()


@pytest.mark.parametrize("shape", [(), (0,), (5,), (1, 5, 1), (3, 4, 5)])
def test_no_ordinary_array_overlaps_itself(shape):
    x = np.ones(shape)
    for view in (x, x.T, x[..., None], x[::-1] if shape else x, np.asfortranarray(x)):
        assert not overlaps_itself(view)


def test_byte_order_makes_gapless_views_flat_without_a_copy():
    x = np.arange(60.0).reshape(3, 4, 5)
    for view in (x, x.T, x.transpose(1, 0, 2), x[::-1, :, ::-1], np.asfortranarray(x), x[1:2]):
        flat = in_byte_order(view)
        assert flat.ndim == 1
        assert np.shares_memory(flat, view)
        np.testing.assert_array_equal(np.sort(flat), np.sort(view, axis=None))
    assert in_byte_order(x[:, ::2]).ndim == 3
