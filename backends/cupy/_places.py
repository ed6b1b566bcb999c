"""Where arrays are in memory. While they stay there, the table that was made from their places is used again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from gradclip import _dtypes
from gradclip._limits import KEPT_TABLES
from gradclip._memory import in_byte_order, overlapping_pair, overlaps_itself, phantom
from gradclip._tree import slots_of


class Place(NamedTuple):
    """Where an array is in memory. Places are equal if arrays have the same elements in the same order.

    ``steps`` are the strides in bytes, or None for an array in C order without gaps.
    """

    address: int
    shape: tuple[int, ...]
    steps: tuple[int, ...] | None
    dtype: str
    width: int
    device: int = 0

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size of the elements in bytes, without gaps."""
        return self.numel * self.width

    def view(self) -> np.ndarray[Any, Any]:
        """Return a NumPy array with this address, shape and strides. It is compared and never read."""
        return phantom(self.address, self.shape, self.width, self.steps)

    def dense(self) -> int | None:
        """Return the lowest address of an array without gaps, whatever the order of its axes; None if it has gaps."""
        if self.steps is None:
            return self.address
        ordered = in_byte_order(self.view())
        return int(ordered.ctypes.data) if ordered.ndim == 1 and ordered.flags.c_contiguous else None


@dataclass(frozen=True, eq=False)
class Places:
    """The places of several arrays. While the arrays stay the same, the runtime returns the same object.

    Parameters
    ----------
    items : tuple of Place
        One for each array.
    """

    items: tuple[Place, ...]

    @cached_property
    def dtypes(self) -> frozenset[str]:
        """The names of the dtypes."""
        return frozenset(place.dtype for place in self.items)

    @cached_property
    def askew(self) -> int | None:
        """The position of an array that a GPU cannot read, because its elements are not aligned, or None."""
        for i, place in enumerate(self.items):
            width = place.width // 2 if place.dtype.startswith("complex") else place.width
            if any(n % width for n in (place.address, *(place.steps or ()))):
                return i
        return None

    @cached_property
    def by_device(self) -> list[tuple[int, list[int]]]:
        """Each device with the positions of its arrays, beginning with the first array's device."""
        found: dict[int, list[int]] = {}
        for i, place in enumerate(self.items):
            found.setdefault(place.device, []).append(i)
        return list(found.items())

    @cached_property
    def slots(self) -> Sequence[int]:
        """Which of the distinct places each array has; a range if all are distinct."""
        return slots_of(self.items)

    @cached_property
    def apart(self) -> bool:
        """Whether no two elements share memory."""
        views = [place.view() for place in self.items]
        return not any(map(overlaps_itself, views)) and overlapping_pair(views) is None


@lru_cache(maxsize=4 * KEPT_TABLES)
def places_of(keys: tuple[tuple[Any, ...], ...]) -> Places:
    """Return places for keys, each of an address, the shape, the strides, the dtype and the device."""
    return Places(tuple([_place(*key) for key in keys]))


def _place(address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any, device: int) -> Place:
    step, dense = dtype.itemsize, True
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        dense = dense and (n == 1 or stride == step)
        step *= n
    return Place(
        address, shape, None if dense or not step else strides, _dtypes.dtype_name(dtype), dtype.itemsize, device
    )
