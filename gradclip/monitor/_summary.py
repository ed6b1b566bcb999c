"""``summary``: what the norms of a run were like."""

import math
from dataclasses import dataclass

import numpy as np

from gradclip.monitor._history import History
from gradclip.monitor._windows import spikes, steady_from, usable

PERCENTILES = (1, 5, 25, 50, 75, 90, 95, 99)
BLAMED = 3
"""The number of parameters that are named for each spike."""


@dataclass(frozen=True)
class Spike:
    """A step whose norm is far above the others.

    Parameters
    ----------
    step : int
    norm : float
        The norm before clipping; inf if it overflowed.
    times : float
        How many times the median it is.
    parameters : dict of str to float
        The largest shares of the squared norm, 0 to 1, by parameter, if the norms of parameters were recorded.
    """

    step: int
    norm: float
    times: float
    parameters: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """What the norms of a run were like.

    Parameters
    ----------
    steps : int
        The number of recorded steps.
    nonfinite : int
        The number of norms that are NaN or inf.
    percentiles : dict of int to float
        Percentiles of the finite norms, by percent.
    largest : float
        The largest finite norm.
    clipped, skipped : float or None
        The share of steps, 0 to 1; None if that was not recorded.
    spikes : list of Spike
        The spikes of the steady part, the largest first.
    """

    steps: int
    nonfinite: int
    percentiles: dict[int, float]
    largest: float
    clipped: float | None
    skipped: float | None
    spikes: list[Spike]


def summary(history: History) -> Summary:
    """Return percentiles, shares and spikes of a history.

    Parameters
    ----------
    history : History

    Returns
    -------
    Summary

    Examples
    --------
    >>> import numpy as np
    >>> from gradclip.monitor import History, summary
    >>> norms = np.tile([0.9, 1.0, 1.1], 40)
    >>> norms[70] = 25.0
    >>> found = summary(History(np.arange(120), norms))
    >>> found.percentiles[50], found.spikes[0].step, found.spikes[0].times
    (1.0, 70, 25.0)
    """
    norms = history.norm
    finite = norms[np.isfinite(norms)]
    values = np.percentile(finite, PERCENTILES) if finite.size else np.full(len(PERCENTILES), math.nan)
    return Summary(
        steps=norms.size,
        nonfinite=norms.size - finite.size,
        percentiles={p: float(value) for p, value in zip(PERCENTILES, values, strict=True)},
        largest=float(finite.max()) if finite.size else math.nan,
        clipped=None if history.clipped is None else float(history.clipped.mean()) if norms.size else 0.0,
        skipped=None if history.skipped is None else float(history.skipped.mean()) if norms.size else 0.0,
        spikes=_spikes(history),
    )


def _spikes(history: History) -> list[Spike]:
    norms = history.norm
    if usable(norms).size < 2:
        return []
    first = steady_from(norms)
    reference = norms[first:]
    middle = float(np.median(usable(reference))) if usable(reference).size else math.nan
    found = [i for i in np.flatnonzero(spikes(norms, reference)) if i >= first]
    found.sort(key=lambda i: -norms[i])
    return [
        Spike(int(history.step[i]), float(norms[i]), float(norms[i]) / middle, _shares(history, int(i))) for i in found
    ]


def _shares(history: History, at: int) -> dict[str, float]:
    """Return the parameters with the largest shares of the squared norm at a step."""
    norms = {name: float(values[at]) for name, values in history.parameters.items() if math.isfinite(values[at])}
    largest = max(norms.values(), default=0.0)
    if not largest:
        return {}
    squares = {name: (norm / largest) ** 2 for name, norm in norms.items()}
    whole = sum(squares.values())
    ranked = sorted(squares.items(), key=lambda pair: -pair[1])[:BLAMED]
    return {name: square / whole for name, square in ranked}
