"""`summary`: what the norms of a run were like."""

import math
from dataclasses import dataclass, field

import numpy as np

from gradclip.monitor._history import Flags, Floats, History
from gradclip.monitor._robust import deviations, logarithms, spikes

PERCENTILES = (1, 5, 25, 50, 75, 90, 95, 99)

BLAMED_MOST = 3
"""The number of parameters that are named for a spike."""


@dataclass(frozen=True)
class Spike:
    """A step whose norm is far above the norms around it.

    Parameters
    ----------
    step : int
        The number of the step.
    norm : float
        The norm before clipping; inf if it overflowed.
    times : float
        How many times the level around it the norm is.
    parameters : dict of str to float
        The parameters with the largest shares of the squared norm, at most 3, and these shares, 0 to 1. Empty if the
        norms of parameters were not recorded.
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
        The number of steps.
    nonfinite, zero : int
        The number of norms that are NaN or inf, and that are 0.
    percentiles : dict of int to float
        Percentiles of the finite norms, by percent: 1, 5, 25, 50, 75, 90, 95, 99. NaN if there are none.
    largest : float
        The largest finite norm; NaN if there is none.
    clipped, skipped : float or None
        The share of the steps that were clipped, and skipped, 0 to 1. None if it was not recorded.
    spikes : list of Spike
        The spikes, the largest first.
    shares : dict of str to float
        The share of each parameter in the squared norm, 0 to 1, as the mean over the steps; the largest first. Empty if
        the norms of parameters were not recorded.
    """

    steps: int
    nonfinite: int
    zero: int
    percentiles: dict[int, float]
    largest: float
    clipped: float | None
    skipped: float | None
    spikes: list[Spike]
    shares: dict[str, float] = field(default_factory=dict)


def summary(history: History) -> Summary:
    """Return percentiles, the shares of clipped and skipped steps, and the spikes of a history.

    A spike is 6 robust standard deviations of logarithms and a factor of 2 above the level around it, which is the
    median of a fiftieth of the steps.

    Parameters
    ----------
    history : History
        The norms of a run.

    Returns
    -------
    Summary

    Examples
    --------
    >>> import numpy as np
    >>> from gradclip.monitor import History, summary
    >>> norms = np.tile([0.9, 1.0, 1.1], 40)
    >>> norms[70] = 25.0
    >>> weight = norms / 2
    >>> found = summary(History(np.arange(120), norms, parameters={"weight": weight, "bias": weight / 100}))
    >>> found.percentiles[50], found.largest
    (1.0, 25.0)
    >>> [(spike.step, round(spike.times), list(spike.parameters)) for spike in found.spikes]
    [(70, 24, ['weight', 'bias'])]
    """
    norms = history.norm
    finite = norms[np.isfinite(norms)]
    values = np.percentile(finite, PERCENTILES).tolist() if finite.size else [math.nan] * len(PERCENTILES)
    return Summary(
        steps=norms.size,
        nonfinite=norms.size - finite.size,
        zero=int((norms == 0).sum()),
        percentiles=dict(zip(PERCENTILES, values, strict=True)),
        largest=float(finite.max()) if finite.size else math.nan,
        clipped=_share(history.clipped),
        skipped=_share(history.skipped),
        spikes=spikes_of(history),
        shares=_mean_shares(history.parameters),
    )


def _share(flags: Flags | None) -> float | None:
    return None if flags is None or not flags.size else float(flags.mean())


def spikes_of(history: History) -> list[Spike]:
    """Return the spikes of a history, the largest first."""
    logs = logarithms(history.norm)
    above = deviations(logs)[0]
    found = sorted(np.flatnonzero(spikes(logs)).tolist(), key=lambda i: -logs[i])
    return [
        Spike(int(history.step[i]), float(history.norm[i]), _exp(above[i]), _blamed(history.parameters, i))
        for i in found
    ]


def _exp(log: float) -> float:
    return float(np.exp(log)) if log < 700 else math.inf


def _blamed(parameters: dict[str, Floats], at: int) -> dict[str, float]:
    """Return the largest shares of the squared norm at a step. Norms that are NaN or inf share 1 equally."""
    norms = {name: float(values[at]) for name, values in parameters.items()}
    lost = [name for name, norm in norms.items() if not math.isfinite(norm)]
    if lost:
        return dict.fromkeys(lost[:BLAMED_MOST], 1 / len(lost))
    largest = max(norms.values(), default=0.0)
    if not largest:
        return {}
    squares = {name: (norm / largest) ** 2 for name, norm in norms.items()}  # divided, so that none overflows
    whole = sum(squares.values())
    return {name: squares[name] / whole for name in sorted(squares, key=lambda name: -squares[name])[:BLAMED_MOST]}


def _mean_shares(parameters: dict[str, Floats]) -> dict[str, float]:
    """Return the mean share of each parameter, over the steps at which a norm is finite and not all are 0."""
    if not parameters:
        return {}
    largest = np.fmax.reduce(list(parameters.values()))
    usable = np.isfinite(largest) & (largest > 0)
    squares = {name: (norms[usable] / largest[usable]) ** 2 for name, norms in parameters.items()}
    whole = sum(np.nan_to_num(square) for square in squares.values())
    means = {
        name: float(np.mean(np.nan_to_num(square) / whole)) if usable.any() else 0.0 for name, square in squares.items()
    }
    return dict(sorted(means.items(), key=lambda pair: -pair[1]))
