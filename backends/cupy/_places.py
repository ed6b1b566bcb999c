"""Where arrays lie: what a table of pointers is made from, and what tells whether it still holds."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from gradclip._memory import in_byte_order, overlapping_pair, overlaps_itself


class Place(NamedTuple):
    """Where an array lies; equal for arrays of the same elements in the same order.

    ``steps`` are the strides in bytes, or None for an array in C order without gaps.
    """

    address: int
    shape: tuple[int, ...]
    steps: tuple[int, ...] | None
    dtype: str
    width: int
    device: int = 0

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def view(self) -> np.ndarray[Any, Any]:
        """Return a NumPy array with this place's address, shape and strides; never read, only compared."""
        return np.asarray(_Interface(self))

    def dense(self) -> int | None:
        """Return the lowest address of an array without gaps, in whatever order its axes are; None if it has gaps."""
        if self.steps is None:
            return self.address
        ordered = in_byte_order(self.view())
        return int(ordered.ctypes.data) if ordered.ndim == 1 and ordered.flags.c_contiguous else None


class _Interface:
    def __init__(self, place: Place) -> None:
        self.__array_interface__ = {
            "data": (place.address, False),
            "shape": place.shape,
            "strides": place.steps,
            "typestr": f"|V{place.width}",
            "version": 3,
        }


@dataclass(frozen=True, eq=False)
class Places:
    """The places of several arrays, with what follows from them; the same object while the arrays stay the same.

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
        """The position of an array whose elements lie at no multiple of their size, or None: a GPU cannot read it."""
        for i, place in enumerate(self.items):
            width = place.width // 2 if place.dtype.startswith("complex") else place.width
            if any(n % width for n in (place.address, *(place.steps or ()))):
                return i
        return None

    @cached_property
    def by_device(self) -> list[tuple[int, list[int]]]:
        """The devices, the first array's first, each with the positions of its arrays."""
        found: dict[int, list[int]] = {}
        for i, place in enumerate(self.items):
            found.setdefault(place.device, []).append(i)
        return list(found.items())

    @cached_property
    def slots(self) -> list[int]:
        """For each array the number of its place: the same for arrays that are the same."""
        first: dict[Place, int] = {}
        return [first.setdefault(place, len(first)) for place in self.items]

    @cached_property
    def apart(self) -> bool:
        """Whether every element has an address of its own."""
        views = [place.view() for place in self.items]
        return not any(map(overlaps_itself, views)) and overlapping_pair(views) is None
