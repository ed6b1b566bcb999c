"""What each policy would have done with the norms of a log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gradclip._cli.words import short

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from gradclip.monitor._history import History
    from gradclip.policies import Policy

    AnyPolicy: TypeAlias = Policy[Any]
    Floats: TypeAlias = NDArray[np.float64]

__all__ = ["Replay", "policies_for", "replay"]


@dataclass(frozen=True)
class Replay:
    """What a policy would have done; arrays of one element a step.

    Parameters
    ----------
    name
        The policy, as it is written in Python.
    max_norm
        The thresholds; inf where nothing is clipped. None for policies with a threshold for each parameter.
    clipped, skipped
        The steps that would have been clipped or skipped.
    after
        The norm that would have been applied; 0 where the step would have been skipped.
    """

    name: str
    max_norm: Floats | None
    clipped: NDArray[np.bool_]
    skipped: NDArray[np.bool_]
    after: Floats


def policies_for(history: History, max_norm: float | None) -> dict[str, AnyPolicy]:
    """Return the policies that can be replayed, with their published defaults, by their names in Python.

    Those with a threshold for each parameter need the norms of parameters.

    Parameters
    ----------
    history
        The norms.
    max_norm
        For the fixed threshold; None: without one.
    """
    from gradclip.policies import AdaGC, AutoClip, EmaClip, Fixed, QuantileClip, SkipStep, ZClip

    chosen: dict[str, AnyPolicy] = {}
    if max_norm is not None:
        chosen[f"Fixed({short(max_norm)})"] = Fixed(max_norm)
    chosen |= {
        "AutoClip()": AutoClip(),
        "QuantileClip()": QuantileClip(),
        "ZClip()": ZClip(),
        "SkipStep(sigma=6)": SkipStep(sigma=6),
    }
    if history.parameters:
        chosen |= {"AdaGC()": AdaGC(), "EmaClip(1.1)": EmaClip(1.1)}
    return chosen


def replay(history: History, policies: Mapping[str, AnyPolicy], advance: Callable[[int], None]) -> list[Replay]:
    """Return what each policy would have done. ``advance`` is called now and then with a number of steps done."""
    return [_replay(name, policy, history, advance) for name, policy in policies.items()]


def _replay(name: str, policy: AnyPolicy, history: History, advance: Callable[[int], None]) -> Replay:
    norms = np.stack(list(history.parameters.values()), axis=1) if policy.per_leaf else history.norm
    limits = np.empty_like(norms)
    state = policy.init(norms[0])
    with np.errstate(all="ignore"):  # NaN and inf among the norms are what policies are made for
        for i, norm in enumerate(norms):
            limits[i], state = policy.update(state, norm)
            if i % 1000 == 999:
                advance(1000)
    advance(len(norms) % 1000)
    over = norms > limits
    after = np.where(over, limits, norms)
    if policy.per_leaf:
        return Replay(name, None, np.asarray(over.any(1)), np.zeros(len(norms), bool), np.sqrt((after**2).sum(1)))
    if policy.skips:
        skipped = over | ~np.isfinite(norms)
        return Replay(name, limits, np.zeros_like(skipped), skipped, np.where(skipped, 0.0, norms))
    return Replay(name, limits, over, np.zeros_like(over), after)
