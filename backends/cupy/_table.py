"""The table that the CUDA kernels read: the pieces of leaves, with their addresses. Needs NumPy only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradclip._dtypes import COMPONENTS
from gradclip._pieces import Group, Numbers, cut
from gradclip.backends.cupy._places import Place

PIECE = np.dtype(
    [("source", "u8"), ("target", "u8"), ("layout", "u8"), ("start", "i8"), ("count", "i4"), ("leaf", "i4")]
)
"""The work of one block of threads: ``struct Piece`` in kernels.cu."""

CODES = {"float16": 16, "bfloat16": 17, "float32": 32, "float64": 64, "complex64": 32, "complex128": 64}
"""For each dtype, the ``GRADCLIP_DTYPE`` of its kernels. Complex numbers are pairs of real numbers."""


ANY_DTYPE = CODES["float32"]
"""The code of kernels that do the same for all dtypes, such as those that merge partial norms."""


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
        For each leaf with gaps, the number of axes, the shape, and the strides of source and target, in elements.
    groups : list of Group
        One for each launch.
    """

    pieces: Numbers
    ranges: Numbers
    layouts: Numbers
    groups: list[Group]

    @property
    def ranges_at(self) -> int:
        """The offset of the ranges, in bytes."""
        return int(self.pieces.nbytes)

    @property
    def nbytes(self) -> int:
        """The size of the whole in bytes."""
        return int(self.pieces.nbytes + self.ranges.nbytes + self.layouts.nbytes)

    def bytes_at(self, address: int) -> Numbers:
        """Return the table as bytes to be copied to ``address``. They have the addresses of layouts, not indices."""
        pieces = self.pieces.copy()
        base = address + self.pieces.nbytes + self.ranges.nbytes
        offsets = pieces["layout"].view("i8")
        pieces["layout"] = np.where(offsets < 0, 0, base + 8 * offsets).astype("u8")
        return np.concatenate([part.reshape(-1).view(np.uint8) for part in (pieces, self.ranges, self.layouts)])


def table_of(sources: Sequence[Place], targets: Sequence[Place]) -> Table:
    """Return the table for leaves that are read at ``sources`` and written at ``targets``, which may be the same."""
    cuts = cut([place.nbytes for place in sources], [CODES[place.dtype] for place in sources])
    layouts: list[int] = []
    rows = [_row(source, target, layouts) for source, target in zip(sources, targets, strict=True)]
    source, target, layout, width = np.array(rows, np.int64).reshape(-1, 4)[cuts.leaf].T
    offset = np.where(layout < 0, cuts.start, 0)
    pieces = np.empty(len(cuts.leaf), PIECE)
    pieces["source"], pieces["target"], pieces["layout"] = source + offset, target + offset, layout.astype("u8")
    pieces["start"], pieces["count"], pieces["leaf"] = cuts.start // width, cuts.nbytes // width, cuts.leaf
    return Table(pieces, cuts.ranges, np.array(layouts, np.int64), cuts.groups)


def _row(source: Place, target: Place, layouts: list[int]) -> tuple[int, int, int, int]:
    """Return the addresses of a leaf, the index of its layout or -1, and the width in bytes of a real number.

    A layout is appended to ``layouts`` if the leaf has gaps, or source and target differ in strides.
    """
    lanes = 2 if source.dtype in COMPONENTS else 1
    width = source.width // lanes
    address = source.dense()
    if address is not None and source.steps == target.steps:
        return address, address + target.address - source.address, -1, width
    index = len(layouts)
    views = [place.view() for place in (source, target)]
    pair = [lanes] if lanes > 1 else []
    steps = [[*(step // width for step in view.strides), *([1] if pair else [])] for view in views]
    layouts += [len(source.shape) + len(pair), *source.shape, *pair, *steps[0], *steps[1]]
    return source.address, target.address, index, width
