"""Cutting of leaves into pieces, for arrays that no machine here could hold."""

import numpy as np
import pytest

from gradclip._limits import LARGEST_PIECE_NBYTES, MOST_PIECES, PIECE_NBYTES
from gradclip._pieces import Group, cut


def test_pieces_cover_each_leaf_once_in_order():
    nbytes = [400_000, 0, 20, 140_000, PIECE_NBYTES, PIECE_NBYTES + 8]
    pieces = cut(nbytes, [2, 2, 1, 1, 2, 1])
    for i, size in enumerate(nbytes):
        begin, end = pieces.ranges[i]
        assert (pieces.leaf[begin:end] == i).all()
        assert pieces.start[begin:end].tolist() == list(range(0, size, PIECE_NBYTES))
        assert pieces.nbytes[begin:end].sum() == size
        assert end - begin == -(-size // PIECE_NBYTES)
    assert (pieces.nbytes > 0).all()
    assert (pieces.nbytes <= PIECE_NBYTES).all()


def test_groups_are_sorted_by_code_and_hold_all_pieces():
    pieces = cut([40, 0, 20, 30_000, 8], [7, 5, 3, 7, 3])
    assert pieces.groups == [Group(3, 0, 2), Group(7, 2, 3)]
    assert pieces.leaf.tolist() == [2, 4, 0, 3, 3]
    assert pieces.ranges.tolist() == [[2, 3], [2, 2], [0, 1], [3, 5], [1, 2]]


@pytest.mark.parametrize("leaves", [[], [0], [0, 0]])
def test_nothing_to_cut(leaves):
    pieces = cut(leaves, [1] * len(leaves))
    assert pieces.groups == []
    assert len(pieces.leaf) == 0
    assert pieces.ranges.tolist() == [[0, 0]] * len(leaves)


def test_pieces_grow_where_there_would_be_too_many():
    assert MOST_PIECES // 2 < len(cut([1 << 29], [0]).leaf) <= MOST_PIECES
    many = cut([1 << 25] * 16, [0] * 16)
    assert MOST_PIECES // 2 < len(many.leaf) <= MOST_PIECES
    assert len(cut([1] * 5000, [0] * 5000).leaf) == 5000  # a leaf has a piece at least


def test_pieces_grow_no_further_than_the_rounding_error_allows():
    pieces = cut([5 << 40], [0])
    assert len(pieces.leaf) == (5 << 40) // LARGEST_PIECE_NBYTES
    assert pieces.start[-1] + pieces.nbytes[-1] == 5 << 40


def test_the_start_of_a_piece_is_as_aligned_as_its_leaf():
    pieces = cut([8_000_004, 12_345_678], [0, 0])
    assert (pieces.start % 16 == 0).all()
    assert pieces.start.dtype == np.int64
