"""`Totals`: what is known of all steps of a run, in memory of fixed size."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from gradclip.monitor._histogram import LogHistogram
from gradclip.monitor._history import History
from gradclip.monitor._row import Known
from gradclip.monitor._summary import PERCENTILES, Spike, Summary, spikes_of

SPIKES_MOST = 100
"""The spikes that are kept of steps that left the window: the largest."""


class Totals:
    """Counts, the histogram of norms, and the largest spikes."""

    def __init__(self) -> None:
        self.steps = 0
        self.largest = math.nan
        self.histogram = LogHistogram()
        self.flags = {"clipped": (0, 0), "skipped": (0, 0)}
        """How many steps were clipped, and skipped; and of how many steps that is known."""
        self.spikes: list[Spike] = []
        """Spikes of steps that left the window."""

    def add(self, rows: Sequence[Known]) -> None:
        """Add rows."""
        norms = [row.numbers["norm"] for row in rows]
        self.steps += len(rows)
        self.histogram.add(norms)
        self.largest = max([self.largest, *filter(math.isfinite, norms)], key=_nan_first)
        for name, (true, known) in self.flags.items():
            said = [row.numbers[name] != 0 for row in rows if name in row.numbers]
            self.flags[name] = true + sum(said), known + len(said)

    def leave(self, history: History, last: int) -> None:
        """Keep the spikes of a window up to a last step, because these steps are about to be dropped."""
        found = [spike for spike in spikes_of(history) if spike.step <= last]
        self.spikes = sorted([*self.spikes, *found], key=_size, reverse=True)[:SPIKES_MOST]

    def widened(self, found: Summary) -> Summary:
        """Return the summary of a window as that of all steps, if there were more."""
        if self.steps <= found.steps:
            return found
        share = {name: true / known if known else None for name, (true, known) in self.flags.items()}
        return replace(
            found,
            steps=self.steps,
            nonfinite=self.histogram.nans + self.histogram.infs,
            zero=self.histogram.zeros,
            percentiles={p: self.histogram.quantile(p / 100, finite=True) for p in PERCENTILES},
            largest=self.largest,
            clipped=share["clipped"],
            skipped=share["skipped"],
            spikes=sorted([*self.spikes, *found.spikes], key=_size, reverse=True),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers."""
        return {
            "steps": self.steps,
            "largest": self.largest,
            "histogram": self.histogram.state_dict(),
            "flags": {name: list(pair) for name, pair in self.flags.items()},
            "spikes": [asdict(spike) for spike in self.spikes],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.steps, self.largest = int(state_dict["steps"]), float(state_dict["largest"])
        self.histogram.load_state_dict(state_dict["histogram"])
        self.flags = {name: (int(true), int(known)) for name, (true, known) in state_dict["flags"].items()}
        self.spikes = [Spike(**spike) for spike in state_dict["spikes"]]


def _nan_first(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _size(spike: Spike) -> float:
    return spike.norm
