"""Values of one column with their steps, in compact arrays."""

from array import array
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Points"]

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

MULTIPLIER = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: multiplying a step by it, modulo 2**64, gives a well-mixed hash."""


class Points:
    """Pairs (step, value) of one column in the order of the log; 16 bytes a pair."""

    def __init__(self) -> None:
        self._steps = array("q")
        self._values = array("d")

    def __len__(self) -> int:
        return len(self._steps)

    def append(self, step: int, value: float) -> None:
        """Add a value."""
        self._steps.append(step)
        self._values.append(value)

    def latest(self) -> tuple[Ints, Floats]:
        """Return the distinct steps, ascending, and the last value logged for each."""
        steps = np.array(self._steps, np.int64)
        values = np.array(self._values, np.float64)
        order = np.argsort(steps, kind="stable")
        steps, values = steps[order], values[order]
        last = np.append(steps[1:] != steps[:-1], np.ones(min(1, steps.size), bool))
        return steps[last], values[last]

    def at(self, steps: Ints) -> Floats:
        """Return the values at these steps, which ascend; NaN where a step has none."""
        own, values = self.latest()
        result = np.full(steps.shape, np.nan)
        if own.size:
            place = np.minimum(np.searchsorted(own, steps), own.size - 1)
            found = own[place] == steps
            result[found] = values[place[found]]
        return result

    def thin(self, bits: int) -> None:
        """Keep only the steps whose hash starts with ``bits`` zeros: about one in 2**bits."""
        steps = np.array(self._steps, np.int64)
        kept = (steps.view(np.uint64) * np.uint64(MULTIPLIER)) >> np.uint64(64 - bits) == 0
        self._values = array("d", np.array(self._values)[kept].tobytes())
        self._steps = array("q", steps[kept].tobytes())


def in_sample(step: int, bits: int) -> bool:
    """Return whether `Points.thin` keeps this step."""
    return bits == 0 or (step * MULTIPLIER & 0xFFFFFFFFFFFFFFFF) >> (64 - bits) == 0
