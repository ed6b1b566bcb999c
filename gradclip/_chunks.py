"""Boxes of a leaf, small enough to work on without a copy of the leaf."""

import math
from collections.abc import Iterator
from typing import TypeAlias

Box: TypeAlias = tuple[slice, ...]
"""A slice for each axis, with explicit bounds."""

HOST_ELEMENTS = 1 << 16
"""Elements of a chunk on a host: 512 KiB in float64, which stays in the second-level cache."""

DEVICE_ELEMENTS = 1 << 20
"""Elements of a chunk on an accelerator, where each costs a launch: 8 MiB in float64."""


def whole(shape: tuple[int, ...]) -> Box:
    """Return the box that is the whole leaf."""
    return tuple(slice(0, n) for n in shape)


def size(box: Box) -> int:
    """Return the number of elements in a box."""
    return math.prod(side.stop - side.start for side in box)


def halve(box: Box) -> tuple[int, Box, Box]:
    """Return a box in two parts and the axis between them: the first axis that can be cut, so that parts lie together.

    The box must have more than one element.
    """
    axis = next(i for i, side in enumerate(box) if side.stop - side.start > 1)
    start, stop = box[axis].start, box[axis].stop
    middle = (start + stop) // 2
    first = (*box[:axis], slice(start, middle), *box[axis + 1 :])
    return axis, first, (*box[:axis], slice(middle, stop), *box[axis + 1 :])


def boxes(shape: tuple[int, ...], limit: int) -> Iterator[Box]:
    """Yield boxes of at most ``limit`` elements that make up a leaf, in order."""
    pending = [whole(shape)]
    while pending:
        box = pending.pop()
        if size(box) <= limit:
            yield box
        else:
            _, first, second = halve(box)
            pending += [second, first]
