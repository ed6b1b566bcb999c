"""Where gradients explode: norms that grow by orders of magnitude and do not come back."""

import math
from typing import NamedTuple

import numpy as np

from gradclip.monitor._history import Flags, Floats
from gradclip.monitor._robust import batches, logarithms

USUAL_QUANTILE = 0.1
"""The usual norm is this quantile of the medians of batches: so an explosion is found from a tenth of the steps on."""

EXPLODED_TIMES = 100.0
"""After an explosion, the median norm is this many times the usual one."""

HIGH_TIMES = 10.0
"""Norms count as high from this many times the usual one on; the explosion begins with the first of them."""

EXCESS_LEAST = 5
"""An explosion has at least this many more high norms than others."""

ENDING_LEAST = 3
"""This many norms in a row that are NaN or inf, at the very end, are an explosion too."""

NEAR_SHARE = 0.05
"""The share of the steps, on either side of the beginning, by which an explosion is told from a slow drift."""


class Explosion(NamedTuple):
    """Where gradients explode.

    Parameters
    ----------
    begin : int
        The position of the first norm of those that do not come back.
    end : int
        The position of the first of them that is NaN, inf or 100 times the usual norm.
    """

    begin: int
    end: int


def explosion(norms: Floats) -> Explosion | None:
    """Return where gradients explode, or None if they do not.

    A norm is high if it is NaN, inf or more than 10 times the usual norm, which is the tenth percentile of the medians
    of batches. An explosion is the end of the history in which high norms outnumber the others the most, provided that
    the last 3 norms are NaN or inf, or that

    - there are at least 5 more high norms than others;
    - the median norm there is at least 100 times the usual one, or half of the norms are NaN or inf;
    - it comes fast: norms after its beginning are 10 times those before, each over 5 % of the steps.

    Single spikes, and NaN from which the run recovers, are none of this.

    Parameters
    ----------
    norms : array of float64, shape (steps,)
        The norms, NaN and inf included.
    """
    logs = logarithms(norms)
    logs[~np.isfinite(norms)] = math.inf
    usual = _usual(logs)
    if usual is None:
        return None if np.isfinite(norms).any() or not norms.size else Explosion(0, 0)
    high = logs > usual + math.log(HIGH_TIMES)
    start = _begins(high)
    after = logs[start:]
    if start == norms.size:
        return None
    exploded = usual + math.log(EXPLODED_TIMES)
    if _ends_in_nonfinite(after) or (
        2 * int(high[start:].sum()) - after.size >= EXCESS_LEAST
        and _median(after) >= exploded
        and _is_fast(logs, start)
    ):
        return Explosion(start, start + int(np.argmax(after >= exploded)))
    return None


def _is_fast(logs: Floats, start: int) -> bool:
    near = max(3, int(NEAR_SHARE * logs.size))
    before, after = logs[max(0, start - near) : start], logs[start : start + near]
    return _median(after) >= _median(before) + math.log(HIGH_TIMES)


def _usual(logs: Floats) -> float | None:
    medians = batches(logs).medians
    medians = medians[np.isfinite(medians)]
    return float(np.quantile(medians, USUAL_QUANTILE)) if medians.size else None


def _begins(high: Flags) -> int:
    """Return the start of the end part in which high norms outnumber the others the most; the size if there is none."""
    excess = np.cumsum(np.where(high, 1, -1)[::-1])[::-1]
    if not excess.size or excess.max() <= 0:
        return high.size
    return int(np.argmax(excess))


def _ends_in_nonfinite(logs: Floats) -> bool:
    return logs.size >= ENDING_LEAST and bool(np.isinf(logs[-ENDING_LEAST:]).all())


def _median(logs: Floats) -> float:
    """Return the median of logarithms, inf included; NaN, the logarithm of 0, is the lowest."""
    ranked = np.sort(np.where(np.isnan(logs), -math.inf, logs))
    return float(ranked[ranked.size // 2]) if ranked.size else -math.inf
