"""Boxes cover a leaf once and in order, and none is larger than asked for."""

import numpy as np
import pytest

from gradclip import _chunks


@pytest.mark.parametrize("shape", [(), (1,), (7,), (0, 3), (5, 1, 9), (2, 3, 4, 5), (1, 1, 1000)])
@pytest.mark.parametrize("limit", [1, 4, 1000])
def test_boxes_cover_a_leaf_once_in_order(shape, limit):
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    boxes = list(_chunks.boxes(shape, limit))
    assert all(_chunks.numel(box) <= limit for box in boxes)
    assert np.concatenate([x[box].ravel() for box in boxes]).tolist() == x.ravel().tolist()


def test_a_leaf_within_the_limit_is_one_box():
    assert list(_chunks.boxes((3, 4), 12)) == [_chunks.whole((3, 4))] == [(slice(0, 3), slice(0, 4))]


def test_halves_are_along_the_first_axis_that_can_be_cut():
    axis, first, second = _chunks.halve(_chunks.whole((1, 5, 2)))
    assert axis == 1
    assert first == (slice(0, 1), slice(0, 2), slice(0, 2))
    assert second == (slice(0, 1), slice(2, 5), slice(0, 2))
