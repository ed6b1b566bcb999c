"""suggest: a max_norm for the norms of a run. A simple one: the percentile of the second half."""

from dataclasses import dataclass

import numpy as np

from gradclip.monitor._history import History

__all__ = ["Suggestion", "suggest"]


@dataclass(frozen=True)
class Suggestion:
    """A threshold and the reason for it; ``max_norm`` None: do not clip."""

    max_norm: float | None
    reason: str


def suggest(history: History, *, share: float = 0.05) -> Suggestion:
    """Return the threshold that a share of the later half of the steps exceeds: the warm-up is over there."""
    late = history.norm[history.norm.size // 2 :]
    late = late[np.isfinite(late)]
    if not late.size:
        return Suggestion(None, "No norm is finite in the second half of the steps.")
    value = float(np.quantile(late, 1 - share))
    return Suggestion(value, f"{100 * share:g} % of the steps in the second half of the log have a larger norm.")
