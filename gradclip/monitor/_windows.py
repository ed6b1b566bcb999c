"""Robust statistics of norms on a logarithmic scale: medians of windows, the steady part, spikes."""

import math

import numpy as np
from numpy.typing import NDArray

Norms = NDArray[np.float64]

WINDOWS = 20
"""The number of windows that a history is divided into, to tell a warm-up and a drift from noise."""

SPIKE_DEVIATIONS = 6.0
"""A norm is a spike if its logarithm is this many standard deviations above the median, estimated robustly."""

LEAST_DEVIATION = 0.02
"""The least standard deviation of logarithms, so that norms that hardly vary have no spikes of 3 %."""


def usable(norms: Norms) -> Norms:
    """Return the norms that are finite and above 0."""
    return norms[np.isfinite(norms) & (norms > 0)]


def medians(norms: Norms) -> Norms:
    """Return the median of the usable norms in each of `WINDOWS` windows; NaN where a window has none."""
    parts = [usable(part) for part in np.array_split(norms, WINDOWS)]
    return np.array([np.median(part) if part.size else math.nan for part in parts])


def steady_from(norms: Norms, factor: float = 2.0) -> int:
    """Return the position from which on norms are steady: the end of the warm-up.

    Windows belong to the steady part as long as their medians are within a factor of the median of the last quarter,
    counted from the end. The last quarter always belongs to it. A history with fewer than two norms a window is steady.
    """
    if norms.size < 2 * WINDOWS:
        return 0
    middles = medians(norms)
    quarter = WINDOWS // 4
    level = np.nanmedian(middles[-quarter:]) if np.isfinite(middles[-quarter:]).any() else math.nan
    first = WINDOWS - quarter
    while first and (level / factor <= middles[first - 1] <= level * factor):
        first -= 1
    edges = np.cumsum([0, *(part.size for part in np.array_split(norms, WINDOWS))])
    return int(edges[first])


def spikes(norms: Norms, reference: Norms | None = None) -> NDArray[np.bool_]:
    """Return which norms are spikes: far above the median of ``reference``, by default of themselves, or inf."""
    base = np.log(usable(norms if reference is None else reference))
    if not base.size:
        return np.isinf(norms)
    middle = np.median(base)
    deviation = max(LEAST_DEVIATION, 1.4826 * float(np.median(np.abs(base - middle))))
    return norms > math.exp(min(700.0, float(middle) + SPIKE_DEVIATIONS * deviation))
