"""Places of labels that must not overlap."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["spread"]


def spread(places: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Return ascending places, moved so that they are at least ``gap`` apart; groups stay around their middle."""
    groups: list[list[float]] = []
    for place in places.tolist():
        groups.append([place])
        while len(groups) > 1 and _top(groups[-2], gap) + gap > _bottom(groups[-1], gap):
            last = groups.pop()
            groups[-1] += last
    spots = [_bottom(group, gap) + gap * i for group in groups for i in range(len(group))]
    return np.array(spots, np.float64)


def _bottom(group: list[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _top(group: list[float], gap: float) -> float:
    return _bottom(group, gap) + gap * (len(group) - 1)
