"""`suggest`: a ``max_norm`` for the norms of a run, with the reason in words."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gradclip.monitor._explosion import Explosion, explosion
from gradclip.monitor._history import Flags, Floats, History, Steps
from gradclip.monitor._reasons import (
    TOO_EARLY,
    say_calm,
    say_ceiling,
    say_drift,
    say_explosion,
    say_nonfinite,
    say_threshold,
    say_too_few,
    say_warmup,
)
from gradclip.monitor._robust import Trend, deviations, logarithms, settled_from, spikes, trend, usable

Verdict = Literal["clip", "do not clip", "exploding", "unknown"]

STEPS_LEAST = 30
"""The number of finite norms above 0 that a suggestion needs."""

CALM_TIMES = 1.5
"""Norms that never exceed this many times their median need no clipping."""

WARMUP_TIMES = 1.25
"""A beginning is left out if its median norm differs from that of the rest by this factor."""

DRIFT_TIMES = 1.5
DRIFT_SCORE = 3.0
"""A drift is a trend by this factor at least, and of at least this Mann-Kendall score (two-sided p = 0.003)."""

DRIFT_PART = 3
"""Of norms that drift, the last third decides."""

CEILING_SHARE = 0.1
CEILING_WIDTH, CEILING_REACH = 1e-3, 0.2
"""Norms that were recorded after clipping: this share is within 0.1 % of the largest, and some are within 20 %."""


@dataclass(frozen=True)
class Suggestion:
    """What `suggest` found.

    Parameters
    ----------
    max_norm : float or None
        The threshold; None: do not clip, or it cannot be told.
    reason : str
        Why, in sentences.
    verdict : {"clip", "do not clip", "exploding", "unknown"}
        "exploding": gradients explode; ``max_norm``, if there is one, is for the steps before. "unknown": the history
        does not tell.
    share : float or None
        The share of the steps from ``steady_from`` on, before any explosion, whose norm exceeds ``max_norm``.
    steady_from : int or None
        The step at which the warm-up is over, from which on norms were considered.
    explodes_at : int or None
        The step at which gradients explode.
    """

    max_norm: float | None
    reason: str
    verdict: Verdict = "unknown"
    share: float | None = None
    steady_from: int | None = None
    explodes_at: int | None = None

    def __str__(self) -> str:
        """Return the threshold and the reason."""
        return self.reason if self.max_norm is None else f"max_norm = {self.max_norm:.3g}: {self.reason}"


def suggest(history: History, *, share: float = 0.05) -> Suggestion:
    """Return a ``max_norm`` that clips a share of the steps, and the reason; or say why there should be none.

    The same history gives the same answer. Everything is computed from logarithms of norms, by medians and ranks, so
    that a few wild steps change little. In this order:

    1. Fewer than 30 finite norms above 0: "unknown". All 0: no gradient reaches the parameters.
    2. Explosion: norms grow by a factor of 100 or become NaN or inf, and do not come back until the end. The answer
       names the step. What follows uses only the steps before.
    3. A tenth of the norms equal the largest: they were recorded after clipping, "unknown".
    4. Warm-up: the beginning is cut off where the marginal standard error rule (MSER) [1]_ says, in the first half, if
       its norms differ from the rest by a factor of 1.25 and by more than one standard deviation.
    5. Drift: if what remains still rises or falls, by a slope [2]_ that makes a factor of 1.5 over the run, and the
       test of Mann and Kendall finds that this is no chance (score above 3), then there is no warm-up to cut off. Only
       the last third is used, and the answer says that no single number fits the whole run.
    6. Calm: no norm exceeds 1.5 times the median, "do not clip".
    7. Else the threshold is the norm that ``share`` of the remaining steps exceed. If more steps than that are spikes
       (6 robust standard deviations and a factor of 2 above the norms around them), it is the largest norm that is no
       spike, so that all spikes are clipped.

    NaN and inf do not count for the threshold: clipping does not mend them.

    Parameters
    ----------
    history : History
        The norms of a run, before clipping.
    share : float
        The share of steps to clip, greater than 0 and less than 1.

    Returns
    -------
    Suggestion
        The threshold or None, the reason, the verdict, and the steps that were considered.

    Raises
    ------
    ValueError
        If ``share`` is not between 0 and 1.

    References
    ----------
    .. [1] K. P. White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69(6),
       1997.
    .. [2] P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", Journal of the American
       Statistical Association 63, 1968.

    Examples
    --------
    >>> import numpy as np
    >>> from gradclip.monitor import History, suggest
    >>> norms = np.tile([0.9, 1.0, 1.1, 1.0, 6.0], 40)
    >>> found = suggest(History(np.arange(200), norms))
    >>> found.verdict, found.max_norm, found.share
    ('clip', 1.1, 0.2)
    >>> found.reason.partition(";")[0]
    '20 % of the steps, 40 of 200, exceed it'
    >>> print(suggest(History(np.arange(200), np.ones(200))))
    Do not clip: all norms are 1. A larger threshold does nothing, a smaller one scales all steps.
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share!r}, expected a number between 0 and 1; pass 0.05 to clip 5 % of the steps")
    norms, steps = history.norm, history.step
    exploding = explosion(norms)
    end = None if exploding is None else exploding.begin
    before = norms[:end]
    if usable(logarithms(before)).size < STEPS_LEAST:
        return _without_enough(norms, steps, exploding)
    if _has_ceiling(before):
        largest = float(before[np.isfinite(before)].max())
        return Suggestion(None, say_ceiling(largest))
    first = _settled(before)
    drift = _drift(before, first)
    first = first if drift is None else 0
    found = _for_settled(before[first:], share, drift)
    settled = before[first:]
    middle = float(np.median(settled[np.isfinite(settled)]))
    said = [found.reason, say_warmup(before[:first], int(steps[first]), middle, found.max_norm)]
    if exploding is not None:
        said = [_exploding(norms, steps, exploding), f"For the steps before: {said[0]}", said[1]]
    return Suggestion(
        found.max_norm,
        _joined(*said),
        found.verdict if end is None else "exploding",
        found.share,
        int(steps[first]),
        None if end is None else int(steps[end]),
    )


def _without_enough(norms: Floats, steps: Steps, exploding: Explosion | None) -> Suggestion:
    """Return what can be said of fewer than `STEPS_LEAST` usable norms."""
    if exploding is None:
        return Suggestion(None, say_too_few(norms, STEPS_LEAST))
    reason = f"{_exploding(norms, steps, exploding)} {TOO_EARLY}"
    return Suggestion(None, reason, "exploding", explodes_at=int(steps[exploding.begin]))


def _exploding(norms: Floats, steps: Steps, where: Explosion) -> str:
    return say_explosion(norms[where.begin :], int(steps[where.begin]), int(steps[where.end]))


def _has_ceiling(norms: Floats) -> bool:
    """Whether norms look as if they were recorded after clipping.

    Then many equal the largest, few are just beneath, and those farther beneath differ from one another.
    """
    finite = norms[np.isfinite(norms) & (norms > 0)]
    below = 1 - finite / finite.max()
    top, next_to_it = float(np.mean(below < CEILING_WIDTH)), float(np.mean(below < 2 * CEILING_WIDTH))
    beneath = finite[(below >= CEILING_WIDTH) & (below < CEILING_REACH)]
    piled_up = top >= CEILING_SHARE and next_to_it - top < top / 10
    return piled_up and beneath.size > 0 and 2 * np.unique(beneath).size > beneath.size


def _settled(norms: Floats) -> int:
    """Return the position at which the warm-up is over; 0 if the beginning is like the rest."""
    logs = logarithms(norms)
    first = settled_from(logs)
    early, late = usable(logs[:first]), usable(logs[first:])
    if not early.size or late.size < STEPS_LEAST:
        return 0
    apart = abs(float(np.median(early) - np.median(late)))
    return first if apart >= max(math.log(WARMUP_TIMES), deviations(logs[first:])[1]) else 0


def _drift(norms: Floats, first: int) -> Trend | None:
    """Return the trend of norms if it goes on after a warm-up, and is large over all of them; else None."""
    logs = logarithms(norms)
    rest = trend(logs[first:])
    change = rest.change * norms.size / (norms.size - first)
    if abs(rest.score) < DRIFT_SCORE or abs(change) < math.log(DRIFT_TIMES):
        return None
    return trend(logs) if first else rest


def _for_settled(norms: Floats, share: float, drift: Trend | None) -> Suggestion:
    """Return the suggestion for norms without warm-up and explosion; those that drift by their last part."""
    logs = logarithms(norms)
    part = slice(None) if drift is None else slice(-(norms.size // DRIFT_PART), None)
    high = spikes(logs)
    counted, spiked = norms[part][np.isfinite(logs[part])], high[part][np.isfinite(logs[part])]
    if counted.size < STEPS_LEAST // DRIFT_PART:
        return Suggestion(None, say_too_few(norms[part], STEPS_LEAST))
    nonfinite = int((~np.isfinite(norms)).sum())
    if drift is None and counted.max() <= CALM_TIMES * np.median(counted):
        return Suggestion(None, _joined(say_calm(counted), say_nonfinite(nonfinite)), "do not clip")
    max_norm, by_spikes = _threshold(counted, spiked, share)
    above = norms[np.isfinite(norms)] > max_norm
    reason = say_threshold(counted, max_norm, share, spikes=int(spiked.sum()), by_spikes=by_spikes)
    said = _joined(reason, say_drift(drift, norms[part]) if drift else "", say_nonfinite(nonfinite))
    return Suggestion(max_norm, said, "clip", float(above.mean()))


def _threshold(norms: Floats, spiked: Flags, share: float) -> tuple[float, bool]:
    """Return the threshold for norms, and whether it is that of the spikes."""
    quantile = float(np.quantile(norms, 1 - share))
    usual = norms[~spiked]
    if spiked.any() and usual.size and (fence := float(usual.max())) < quantile:
        return fence, True
    return quantile, False


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))
