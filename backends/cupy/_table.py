"""The table that the kernels read: every leaf is cut into pieces, which are listed with addresses. Needs NumPy only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gradclip.backends.cupy._places import Place

Words: TypeAlias = np.ndarray[Any, Any]

PIECE = np.dtype(
    [("source", "u8"), ("target", "u8"), ("layout", "u8"), ("start", "i8"), ("count", "i4"), ("leaf", "i4")]
)
"""The work of one block of threads: ``struct Piece`` in kernels.cu."""

PIECE_BYTES = 1 << 14
"""The least size of a piece: four accesses of 16 bytes for each of 256 threads. So small leaves use many blocks."""

MOST_PIECES, LARGEST = 1 << 11, 1 << 20
"""If there would be more pieces than ``MOST_PIECES``, they grow, up to ``LARGEST`` bytes. So many pieces are enough for
any device, and one block has to merge their partial norms. With ``LARGEST`` bytes, a running sum adds 128 float64
numbers, so the rounding error does not grow with the size of a leaf."""

CODES = {"float16": 16, "bfloat16": 17, "float32": 32, "float64": 64, "complex64": 32, "complex128": 64}
"""For each dtype, the ``GRADCLIP_DTYPE`` of its kernels. Complex numbers are pairs of real numbers."""


class Group(NamedTuple):
    """The pieces for one launch: ``blocks`` pieces from number ``begin`` on, whose leaves have the same code."""

    code: int
    begin: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Table:
    """The table that is uploaded: the pieces, the range of pieces of each leaf, and the layouts of leaves with gaps.

    Parameters
    ----------
    pieces : array of PIECE
        Sorted by dtype. ``layout`` is an index into ``layouts``, or -1 for a leaf without gaps.
    ranges : array of int64, shape (leaves, 2)
        The first piece of each leaf and the one after its last.
    layouts : array of int64
        For each leaf with gaps, the number of axes, the shape, and the steps in source and target.
    groups : list of Group
        One for each launch.
    """

    pieces: Words
    ranges: Words
    layouts: Words
    groups: list[Group]

    @property
    def ranges_at(self) -> int:
        """The offset of the ranges, in bytes."""
        return int(self.pieces.nbytes)

    @property
    def nbytes(self) -> int:
        """The size of the whole in bytes."""
        return int(self.pieces.nbytes + self.ranges.nbytes + self.layouts.nbytes)

    def bytes_at(self, address: int) -> Words:
        """Return the bytes of the table for this address, with the address of a layout in place of its index."""
        pieces = self.pieces.copy()
        base = address + self.pieces.nbytes + self.ranges.nbytes
        offsets = pieces["layout"].view("i8")
        pieces["layout"] = np.where(offsets < 0, 0, base + 8 * offsets).astype("u8")
        return np.concatenate([part.reshape(-1).view(np.uint8) for part in (pieces, self.ranges, self.layouts)])


def table_of(sources: Sequence[Place], targets: Sequence[Place]) -> Table:
    """Return the table for leaves that are read at ``sources`` and written at ``targets``, which may be the same."""
    codes = [CODES[place.dtype] for place in sources]
    limit = _piece_bytes(sources)
    ranges = np.zeros((len(sources), 2), np.int64)
    pieces: list[Words] = []
    groups: list[Group] = []
    layouts: list[int] = []
    begin = 0
    for code in sorted(set(codes)):
        first = begin
        for i in (i for i, other in enumerate(codes) if other == code):
            cut = _pieces(i, sources[i], targets[i], limit, layouts)
            ranges[i] = begin, begin + len(cut)
            begin += len(cut)
            pieces.append(cut)
        if begin > first:
            groups.append(Group(code, first, begin - first))
    joined = np.concatenate([np.zeros(0, PIECE), *pieces])
    return Table(joined, ranges, np.array(layouts, np.int64), groups)


def _piece_bytes(places: Sequence[Place]) -> int:
    """Return the size of a piece in bytes: the least for which there are not too many pieces."""
    sizes, limit = [place.size * place.width for place in places], PIECE_BYTES
    while limit < LARGEST and sum(size // limit for size in sizes) > MOST_PIECES:
        limit *= 2
    return limit


def _pieces(leaf: int, source: Place, target: Place, limit: int, layouts: list[int]) -> Words:
    """Return the pieces of a leaf. Append to ``layouts`` if it has gaps, or source and target differ in strides."""
    lanes = 2 if source.dtype.startswith("complex") else 1
    width = source.width // lanes
    count, each = source.size * lanes, limit // width
    starts = np.arange(0, count, each, dtype=np.int64)
    pieces = np.zeros(len(starts), PIECE)
    pieces["start"], pieces["leaf"] = starts, leaf
    pieces["count"] = np.minimum(each, count - starts)
    address = source.dense()
    if address is not None and source.steps == target.steps:
        pieces["source"] = address + starts * width
        pieces["target"] = address + target.address - source.address + starts * width
        pieces["layout"] = np.uint64(2**64 - 1)
        return pieces
    pieces["source"], pieces["target"], pieces["layout"] = source.address, target.address, len(layouts)
    layouts += _layout(source, target, lanes, width)
    return pieces


def _layout(source: Place, target: Place, lanes: int, width: int) -> list[int]:
    views = [place.view() for place in (source, target)]
    shape = [*source.shape, *([lanes] if lanes > 1 else [])]
    steps = [[*(step // width for step in view.strides), *([1] if lanes > 1 else [])] for view in views]
    return [len(shape), *shape, *steps[0], *steps[1]]
