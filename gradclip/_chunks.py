"""Chunks of a leaf, described as boxes: small enough to be widened without a copy of the whole leaf."""

import math
from collections.abc import Iterator
from typing import TypeAlias

Box: TypeAlias = tuple[slice, ...]
"""A slice for each axis, with explicit bounds."""


def whole(shape: tuple[int, ...]) -> Box:
    """Return the box that is the whole leaf."""
    return tuple(slice(0, n) for n in shape)


def numel(box: Box) -> int:
    """Return the number of elements in a box."""
    return math.prod(side.stop - side.start for side in box)


def halve(box: Box) -> tuple[int, Box, Box]:
    """Cut a box in two along its first axis longer than 1, so that halves are contiguous; return the axis and halves.

    The box must have more than one element.
    """
    axis = next(i for i, side in enumerate(box) if side.stop - side.start > 1)
    start, stop = box[axis].start, box[axis].stop
    middle = (start + stop) // 2
    first = (*box[:axis], slice(start, middle), *box[axis + 1 :])
    return axis, first, (*box[:axis], slice(middle, stop), *box[axis + 1 :])


def boxes(shape: tuple[int, ...], max_numel: int) -> Iterator[Box]:
    """Yield the boxes of a leaf in order, each of at most ``max_numel`` elements."""
    pending = [whole(shape)]
    while pending:
        box = pending.pop()
        if numel(box) <= max_numel:
            yield box
        else:
            _, first, second = halve(box)
            pending += [second, first]
