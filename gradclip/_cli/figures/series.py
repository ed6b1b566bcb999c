"""A series over the steps: each value, or bands where there are more values than a figure can show."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["draw_series"]

POINTS: Final = 3000
"""The most values that are drawn one by one; figures are some 1,500 pixels wide."""

BINS: Final = 1200
TREND_FROM: Final = 200
"""From this many values on, their running median is drawn too."""


def draw_series(
    axes: Axes,
    steps: NDArray[np.int64],
    values: NDArray[np.float64],
    colour: str,
    label: str,
    *,
    trend: bool = True,
) -> None:
    """Draw values over steps with their running median; of long series the smallest and largest of each bin."""
    if values.size <= POINTS:
        trend = trend and values.size >= TREND_FROM
        mark = "." if values.size < 60 else ""
        axes.plot(steps, values, color=colour, lw=0.7, alpha=0.45 if trend else 1.0, marker=mark, label=label)
        if trend:
            middle = running_median(values, values.size // 40)
            axes.plot(steps, middle, color=colour, lw=1.6, label="running median" if label != "loss" else None)
        return
    edges = np.linspace(0, values.size, BINS + 1).astype(int)
    bins = [values[a:b] for a, b in itertools.pairwise(edges)]
    centres = steps[(edges[:-1] + edges[1:] - 1) // 2]
    low, high = np.array([(part.min(), part.max()) for part in bins]).T
    axes.fill_between(centres, low, high, color=colour, alpha=0.35, lw=0, label=label)
    if trend:
        axes.plot(centres, [np.median(part) for part in bins], color=colour, lw=1.2)


def running_median(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the median around each value; the ends are repeated."""
    half = max(1, width // 2)
    padded = np.pad(values, half, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    return np.asarray(np.median(windows, axis=1))
