"""Robust statistics of norms: on a logarithmic scale, by medians, so that a few wild steps change little."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradclip.monitor._history import Flags, Floats

BATCHES_MOST = 200
BATCH_STEPS_LEAST = 5
"""A history is cut into at most 200 batches of at least 5 steps; each is represented by its median."""

SPIKE_DEVIATIONS = 6.0
SPIKE_TIMES = 2.0
"""A spike is 6 robust standard deviations and a factor of 2 above the level around it. `SkipStep` has the same 6."""

DEVIATION_PER_MAD = 1.4826
"""The standard deviation of a normal distribution, divided by its median absolute deviation (MAD)."""

TREND_BATCHES_MOST = 50
"""The most batches of a trend test, which compares all pairs of them."""

MSER_TOLERANCE = 1.1
"""The tolerance of squared standard errors: without it, chance may move the point far beyond the end of a warm-up."""

NOISE_LEAST = 0.005
"""The standard deviation of logarithms below which norms count as equal: 0.5 %."""


class Batches(NamedTuple):
    """Consecutive steps of a history.

    Parameters
    ----------
    edges : array of int64, shape (batches + 1,)
        Batch k has the steps from ``edges[k]`` to ``edges[k + 1] - 1``.
    medians : array of float64, shape (batches,)
        The median in each batch of what is not NaN; NaN if there is nothing.
    """

    edges: NDArray[np.int64]
    medians: Floats

    @property
    def centres(self) -> Floats:
        """The middle step of each batch."""
        centres: Floats = (self.edges[:-1] + self.edges[1:] - 1) / 2
        return centres


class Trend(NamedTuple):
    """What a trend test found.

    Parameters
    ----------
    change : float
        The change of the logarithm from the first batch to the last, by the median slope (Theil-Sen).
    score : float
        The Mann-Kendall score: normal with standard deviation 1 if there is no trend.
    """

    change: float
    score: float


def logarithms(norms: Floats) -> Floats:
    """Return the logarithms of norms: inf for inf, and NaN for NaN and for norms that are not above 0."""
    logs = np.full(norms.shape, math.nan)
    np.log(norms, out=logs, where=norms > 0)
    return logs


def usable(logs: Floats) -> Floats:
    """Return the finite logarithms."""
    return logs[np.isfinite(logs)]


def batches(logs: Floats, most: int = BATCHES_MOST) -> Batches:
    """Cut a history into batches of nearly the same number of steps; logs that are inf count in the medians."""
    count = max(1, min(most, logs.size // BATCH_STEPS_LEAST))
    edges = np.arange(count + 1, dtype=np.int64) * logs.size // count
    medians = np.full(count, math.nan)
    for k in range(count):
        part = logs[edges[k] : edges[k + 1]]
        part = np.sort(part[~np.isnan(part)])
        if part.size:
            low, high = part[(part.size - 1) // 2], part[part.size // 2]
            medians[k] = low if low == high else (low + high) / 2
    return Batches(edges, medians)


def settled_from(logs: Floats) -> int:
    """Return the position of the step at which the warm-up is over: 0 if there is none, or if it never is.

    It is the truncation point of the marginal standard error rule (MSER, White 1997): of all points in the first half,
    the one for which the mean of what follows has the least standard error; here the first whose squared error is at
    most 1.1 times the least. It is applied to the medians of batches of logarithms, so that spikes do not move it. If
    only the last point is that good, the history does not settle.
    """
    cut = batches(logs)
    kept = np.isfinite(cut.medians)
    medians, starts = cut.medians[kept], cut.edges[:-1][kept]
    half = medians.size // 2
    if half < 2:
        return 0
    left = np.arange(medians.size, 0, -1)
    ends = medians[::-1] - medians.mean()  # centred: the difference of two large sums would lose digits
    sums, squares = np.cumsum(ends)[::-1], np.cumsum(ends**2)[::-1]
    errors = np.maximum(0.0, squares - sums**2 / left) / left.astype(np.float64) ** 2
    first = int(np.argmax(errors[: half + 1] <= MSER_TOLERANCE * errors[: half + 1].min()))
    return int(starts[first]) if first < half else 0


def trend(logs: Floats) -> Trend:
    """Return the trend over a history: Mann-Kendall's test and Theil-Sen's slope, of medians of batches."""
    medians = usable(batches(logs, TREND_BATCHES_MOST).medians)
    n = medians.size
    if n < 4:
        return Trend(0.0, 0.0)
    before, after = np.triu_indices(n, 1)
    rise = medians[after] - medians[before]
    score = float(np.sign(rise).sum())
    _, ties = np.unique(medians, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    if variance <= 0:
        return Trend(0.0, 0.0)
    slope = float(np.median(rise / (after - before)))
    return Trend(slope * (n - 1), (score - float(np.sign(score))) / math.sqrt(variance))


def deviations(logs: Floats) -> tuple[Floats, float]:
    """Return how far each logarithm is above the level around it, and the robust standard deviation of that."""
    cut = batches(logs, most=50)
    known = np.isfinite(cut.medians)
    if not known.any():
        return np.full(logs.shape, math.nan), NOISE_LEAST
    level = np.interp(np.arange(logs.size), cut.centres[known], cut.medians[known])
    above: Floats = logs - level
    finite = usable(above)
    spread = float(np.median(np.abs(finite - np.median(finite)))) if finite.size else 0.0
    return above, max(NOISE_LEAST, DEVIATION_PER_MAD * spread)


def spikes(logs: Floats) -> Flags:
    """Return which steps are spikes: finite norms far above the level around them, or inf."""
    above, deviation = deviations(logs)
    high = np.zeros(logs.shape, np.bool_)
    np.greater(above, max(math.log(SPIKE_TIMES), SPIKE_DEVIATIONS * deviation), out=high, where=~np.isnan(above))
    return high
