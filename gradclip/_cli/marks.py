"""Which steps of a history are clipped or skipped, and by which threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gradclip.monitor._history import History

__all__ = ["Marks", "recorded", "with_threshold"]


@dataclass(frozen=True)
class Marks:
    """A threshold and what it does at each step."""

    max_norm: NDArray[np.float64] | None
    clipped: NDArray[np.bool_]
    skipped: NDArray[np.bool_]
    label: str = "max_norm"
    verb: str = "clipped"
    line: str = "-"


def recorded(history: History) -> Marks:
    """Return what the log says: its thresholds, and the steps that were clipped or skipped."""
    none = np.zeros(history.step.size, bool)
    max_norm = history.max_norm
    if max_norm is not None and not np.isfinite(max_norm).any():
        max_norm = None
    skipped = none if history.skipped is None else history.skipped
    if history.clipped is not None:
        clipped = history.clipped
    else:
        clipped = none if max_norm is None else history.norm > np.nan_to_num(max_norm, nan=np.inf)
    return Marks(max_norm, clipped & ~skipped, skipped)


def with_threshold(history: History, max_norm: float, label: str) -> Marks:
    """Return what a fixed threshold would do."""
    limits = np.full(history.step.size, max_norm)
    none = np.zeros(history.step.size, bool)
    return Marks(limits, history.norm > limits, none, label, "would be clipped", "--")
