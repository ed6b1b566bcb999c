"""The sentences of a suggestion."""

import math

import numpy as np

from gradclip.monitor._history import Floats
from gradclip.monitor._robust import Trend

TOO_EARLY = "There are too few steps before it to tell which norms are usual."

RISE_TIMES = 10.0
"""A rise of the norms in the beginning by this factor may be an explosion."""

FEW_ABOVE = 5
"""With fewer steps than this above a threshold, the threshold is a rough estimate."""


def say_too_few(norms: Floats, least: int) -> str:
    """Return why a history says nothing: there are too few norms, or all are 0."""
    if norms.size and not norms.any():
        return (
            f"All {norms.size:,} norms are 0: no gradient reaches the parameters. Look for a detached loss, frozen "
            "parameters, or norms that were computed after zero_grad()."
        )
    usable = int((np.isfinite(norms) & (norms > 0)).sum())
    return (
        f"{usable:,} of {norms.size:,} norms are finite and above 0, and {least} are needed: record more steps, and "
        "each step."
    )


def say_ceiling(largest: float) -> str:
    """Return that norms were recorded after clipping."""
    return (
        f"A tenth of the norms or more equal the largest, {largest:.4g}: they look like norms after clipping to it. "
        "Record the norms before clipping."
    )


def say_explosion(norms: Floats, begin: int, end: int) -> str:
    """Return that gradients explode between two steps; the norms are those from the first of them on."""
    finite = norms[np.isfinite(norms)]
    lost = norms.size - finite.size
    said = [f"they reach {finite.max():.3g}"] if finite.size else []
    said += [f"{lost:,} of the last {norms.size:,} norms are NaN or inf"] if lost else []
    when = f"before step {end + 1:,}: from step {begin:,} on, the norms do not come back"
    return (
        f"Your gradients explode {when}; {' and '.join(said)}. Clipping may delay this, but look for the cause: a "
        "learning rate that is too high, a warm-up that is too short, bad data, low precision."
    )


def say_calm(norms: Floats) -> str:
    """Return that norms need no clipping."""
    middle, largest = float(np.median(norms)), float(norms.max())
    if largest == norms.min():
        return (
            f"Do not clip: all norms are {middle:.3g}. A larger threshold does nothing, a smaller one scales all steps."
        )
    return (
        f"Do not clip: no norm stands out. The largest, {largest:.3g}, is {largest / middle:.3g} times the median, "
        f"{middle:.3g}, so that clipping would protect against nothing that happened in these steps."
    )


def say_threshold(norms: Floats, max_norm: float, share: float, *, spikes: int, by_spikes: bool) -> str:
    """Return which steps a threshold clips, and what the spikes are."""
    above = int((norms > max_norm).sum())
    middle, largest = float(np.median(norms)), float(norms.max())
    exceed = f"{percent(above / norms.size)} of the steps, {above:,} of {norms.size:,}, exceed it"
    said = [f"{exceed}; the median norm is {middle:.3g}, the largest {largest:.3g}."]
    if by_spikes:
        said.append(
            f"All of them are spikes, and they are more than the {percent(share)} asked for: the threshold is the "
            "largest norm that is no spike."
        )
    elif spikes:
        said.append(f"{_count(spikes, 'step is a spike', 'steps are spikes')}.")
    else:
        said.append("None is a spike: the threshold scales the largest of the usual steps.")
    if above < FEW_ABOVE:
        said.append("So few steps make a rough estimate: record more.")
    return " ".join(said)


def say_warmup(norms: Floats, step: int, settled: float, max_norm: float | None) -> str:
    """Return that a beginning was left out, and how much of it a threshold would clip; nothing if there is none."""
    if not norms.size:
        return ""
    finite = norms[np.isfinite(norms)]
    said = (
        f"The {norms.size:,} steps before step {step:,} are left out: norms settle there, from a median of "
        f"{np.median(finite):.3g} to {settled:.3g}."
    )
    if settled >= RISE_TIMES * float(np.median(finite)):
        said += " Norms that rise so far may have exploded there: see whether the loss fell afterwards."
    if max_norm is None:
        return said
    return f"{said} Of them, {percent(float((finite > max_norm).mean()))} exceed the threshold."


def say_drift(found: Trend, norms: Floats) -> str:
    """Return that norms drift; they are those of the part that decided."""
    way = "rise" if found.change > 0 else "fall"
    return (
        f"The norms {way} by a factor of {math.exp(abs(found.change)):.2g} over the run, so this number fits only its "
        f"end, the last {norms.size:,} steps, which were used. A policy that follows the norms fits the whole run: "
        "ZClip or AutoClip of gradclip.policies."
    )


def say_nonfinite(count: int) -> str:
    """Return that some norms are NaN or inf; nothing if none is."""
    if not count:
        return ""
    return (
        f"{_count(count, 'norm is', 'norms are')} NaN or inf, which no threshold mends: skip such steps, "
        'by gradclip.policies.SkipStep or nonfinite="zero".'
    )


def percent(share: float) -> str:
    """Return a share as a percentage, with two digits if it is small."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _count(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
