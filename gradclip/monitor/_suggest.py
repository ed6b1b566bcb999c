"""``suggest``: a threshold for the norms of a run, with the reason in words."""

import math
from dataclasses import dataclass

import numpy as np

from gradclip._words import short
from gradclip.monitor._history import History
from gradclip.monitor._windows import WINDOWS, Norms, medians, spikes, steady_from, usable

FEWEST = 50
"""The fewest usable norms that say anything about a threshold."""

EXPLOSION = 100.0
"""How many times as large norms have become when they have exploded."""

DRIFT = 1.5
"""How many times as large, or as small, norms become in a steady part that drifts."""

CALM = 1.5
"""If no norm is more than this many times the median, nothing stands out that should be clipped."""


@dataclass(frozen=True)
class Suggestion:
    """A threshold, and the reason for it.

    Parameters
    ----------
    max_norm : float or None
        The suggested threshold; None: do not clip, or nothing can be said.
    reason : str
        The reason, in one to three sentences.
    share : float
        The share of all recorded steps whose norm exceeds the threshold, 0 to 1.
    steady_from : int or None
        The step from which on norms are steady: those before are the warm-up.
    explodes_at : int or None
        The step at which the norms explode.
    """

    max_norm: float | None
    reason: str
    share: float = 0.0
    steady_from: int | None = None
    explodes_at: int | None = None


def suggest(history: History, *, share: float = 0.05) -> Suggestion:
    r"""Return a threshold that clips about a share of the steps, or say why there should be none.

    The rule, in this order, with norms on a logarithmic scale:

    1. With fewer than 50 norms that are finite and above 0, nothing is suggested.
    2. The norms explode if, from some step on, at least half of them are NaN or inf; or if the median of the last
       twentieth of the run is 100 times that of the run's first half, and each window before it is larger than the one
       before. Then only the steps before are looked at.
    3. The warm-up is left out: the steady part is the longest end of the run in which the medians of windows of a
       twentieth of the run are within a factor of 2 of that of the last quarter.
    4. If the largest norm of the steady part is at most 1.5 times its median, nothing stands out: do not clip.
    5. Otherwise the threshold is the quantile 1 - share of the steady part. If the steady part drifts, so that the
       medians of its first and last third differ by a factor of 1.5, it is that of the last third.

    Parameters
    ----------
    history : History
        The norms before clipping.
    share : float
        The share of steps to clip, between 0 and 1.

    Returns
    -------
    Suggestion

    Raises
    ------
    ValueError
        If ``share`` is not between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from gradclip.monitor import History, suggest
    >>> norms = np.tile([0.9, 1.0, 1.1, 1.0, 6.0], 40)
    >>> found = suggest(History(np.arange(200), norms), share=0.25)
    >>> round(found.max_norm, 2), found.share
    (1.1, 0.2)
    """
    if not 0 < share < 1:
        raise ValueError(
            f"share={short(share)}, expected a number between 0 and 1, such as 0.05; pass a share of steps"
        )
    norms, steps = history.norm, history.step
    count = usable(norms).size
    if count < FEWEST:
        return Suggestion(None, _too_few(norms, count))
    end = _explosion(norms)
    before = norms if end is None else norms[:end]
    if usable(before).size < FEWEST:
        assert end is not None
        return Suggestion(
            None,
            f"Your gradients explode before step {steps[end]}, too early to tell what is usual. Lower the learning "
            "rate, or begin it with a warm-up; then look again.",
            explodes_at=int(steps[end]),
        )
    first = steady_from(before)
    steady = before[first:]
    found = _for_steady(steady, share)
    exceeded = 0.0 if found.max_norm is None else float(np.mean(~(norms <= found.max_norm)))
    reason = found.reason
    if first:
        reason += f" The steps before {steps[first]} are left out: norms settle there."
    if end is not None:
        reason = (
            f"Your gradients explode before step {steps[end]}: clipping delays that, a lower learning rate prevents "
            f"it. Before, {reason[0].lower()}{reason[1:]}"
        )
    return Suggestion(found.max_norm, reason, exceeded, int(steps[first]), None if end is None else int(steps[end]))


def _for_steady(norms: Norms, share: float) -> Suggestion:
    """Return the suggestion for norms without warm-up and explosion."""
    some = usable(norms)
    middle, largest = float(np.median(some)), float(some.max())
    wild = norms.size - int(np.isfinite(norms).sum())
    if largest <= CALM * middle and not wild:
        return Suggestion(
            None,
            f"Do not clip: nothing stands out. The largest norm, {largest:.3g}, is {largest / middle:.2g} times the "
            f"median, {middle:.3g}.",
        )
    thirds = [usable(part) for part in np.array_split(norms, 3)]
    drift = float(np.median(thirds[2]) / np.median(thirds[0])) if all(part.size for part in thirds) else 1.0
    drifts = not 1 / DRIFT <= drift <= DRIFT
    base = np.where(np.isfinite(norms), norms, math.inf)[-(norms.size // 3) if drifts else 0 :]
    threshold = float(np.quantile(base, 1 - share, method="higher" if np.isinf(base).any() else "linear"))
    if not math.isfinite(threshold):
        threshold = float(some.max())
    count = int(spikes(norms).sum())
    spiky = f" {count} steps are spikes, far above the others." if count else ""
    reason = f"{share:.0%} of the steady steps have a larger norm; the median is {middle:.3g}.{spiky}"
    if drifts:
        way = "rise" if drift > 1 else "fall"
        reason = (
            f"The norms {way} by a factor of {max(drift, 1 / drift):.2g}, so no single number fits the whole run: "
            f"{share:.0%} of the last steps have a larger norm than this one. A policy that follows the norms, such as "
            f"ZClip(), fits better.{spiky}"
        )
    return Suggestion(threshold, reason)


def _too_few(norms: Norms, count: int) -> str:
    if norms.size and not norms.any():
        return f"All {norms.size} norms are 0: no gradient reaches the parameters. Nothing is to be clipped."
    return f"{count} of {norms.size} norms are finite and above 0, expected at least {FEWEST}: record more steps."


def _explosion(norms: Norms) -> int | None:
    """Return the position at which norms explode, or None."""
    bad = ~np.isfinite(norms)
    if bad.any():
        rest = np.cumsum(bad[::-1])[::-1] / np.arange(norms.size, 0, -1)  # the share of bad norms from here on
        from_here = np.flatnonzero(bad & (rest >= 0.5))
        if from_here.size and norms.size - from_here[0] >= 3:
            return int(from_here[0])
    middles = medians(norms)
    start = np.nanmedian(middles[: WINDOWS // 2]) if np.isfinite(middles[: WINDOWS // 2]).any() else math.nan
    if middles[-1] > EXPLOSION * start and (np.diff(middles[-3:]) > 0).all():
        large = np.flatnonzero(np.isfinite(norms) & (norms > EXPLOSION / 10 * start))
        return int(large[0])
    return None
