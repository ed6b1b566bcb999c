"""Cutting of leaves into pieces, for kernels on a GPU: each block of threads works on one piece.

One large leaf and a thousand small ones both become many pieces, so both use the whole GPU. An adapter writes the
pieces in the form that its kernels read, and copies this table to the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gradclip._limits import LARGEST_PIECE_NBYTES, MOST_PIECES, PIECE_NBYTES

Numbers: TypeAlias = np.ndarray[Any, Any]
"""An array of int64."""


class Group(NamedTuple):
    """The pieces for one launch: ``blocks`` pieces from number ``begin`` on, whose leaves have the same code."""

    code: int
    begin: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of leaves, sorted by the code of the leaf.

    Parameters
    ----------
    leaf : array of int64, shape (pieces,)
        The leaf that each piece is a part of.
    start, nbytes : array of int64, shape (pieces,)
        Where each piece begins in its leaf, and its size; both in bytes.
    ranges : array of int64, shape (leaves, 2)
        The first piece of each leaf and the one after its last.
    groups : list of Group
        One for each launch, in the order of the codes. A code whose leaves are all empty has none.
    """

    leaf: Numbers
    start: Numbers
    nbytes: Numbers
    ranges: Numbers
    groups: list[Group]


def cut(nbytes: Sequence[int], codes: Sequence[int]) -> Pieces:
    """Return the pieces of leaves without gaps.

    Parameters
    ----------
    nbytes : sequence of int
        The size of each leaf in bytes.
    codes : sequence of int
        A number for each leaf. One launch works on all leaves of the same number.
    """
    sizes, kinds = np.asarray(nbytes, np.int64), np.asarray(codes, np.int64)
    most = _piece_nbytes(sizes)
    counts = -(-sizes // most)
    order = np.argsort(kinds, kind="stable")
    ranges = np.empty((len(sizes), 2), np.int64)
    ranges[order, 1] = np.cumsum(counts[order])
    ranges[:, 0] = ranges[:, 1] - counts
    leaf = np.repeat(order, counts[order])
    start = most * (np.arange(len(leaf)) - ranges[leaf, 0])
    found = np.unique(kinds[leaf], return_index=True, return_counts=True)
    groups = [Group(*numbers) for numbers in zip(*map(np.ndarray.tolist, found), strict=True)]
    return Pieces(leaf, start, np.minimum(most, sizes[leaf] - start), ranges, groups)


def _piece_nbytes(sizes: Numbers) -> int:
    """Return the size of a piece in bytes: the least for which there are not too many pieces."""
    most = PIECE_NBYTES
    while most < LARGEST_PIECE_NBYTES and (sizes // most).sum() > MOST_PIECES:
        most *= 2
    return most
