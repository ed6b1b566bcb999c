"""``gradclip compare``: what each policy would have done on a log."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from gradclip._cli.replay import Replay, policies_for, replay
from gradclip._cli.tables import print_table
from gradclip._cli.words import counted, percent, short

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gradclip.monitor import History

__all__ = ["as_json", "replays", "show"]

TITLES = ("policy", "clipped", "skipped", "threshold", "largest after")
CAVEAT = (
    "threshold: its median (each: one for each parameter). largest after: the largest norm that is left. Each policy "
    "is applied to the norms of the log; in a run of its own, the norms would differ."
)


def replays(history: History, max_norm: float | None) -> list[Replay]:
    """Return what each policy would have done; on a terminal, with a progress bar."""
    from rich.progress import Progress

    policies = policies_for(history, max_norm)
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as bars:
        task = bars.add_task("replaying", total=len(policies) * history.norm.size)
        return replay(history, policies, lambda steps: bars.update(task, advance=steps))


def show(console: Console, path: Path, history: History, found: Sequence[Replay]) -> None:
    """Print the table, and what it does not say."""
    console.print(Text(f"{path}", style="bold").append(f"  {counted(history.step.size, 'step')}", style="default"))
    print_table(console, TITLES, list(map(_cells, found)), left=1)
    console.print(Text(CAVEAT, style="dim"), soft_wrap=not console.is_terminal)
    if not history.parameters:
        console.print(
            Text("AdaGC and EmaClip need norms of parameters, which this log lacks.", style="dim"),
            soft_wrap=not console.is_terminal,
        )


def _cells(one: Replay) -> list[str]:
    numbers = _numbers(one)
    return [
        one.name,
        percent(numbers["clipped"]),
        percent(numbers["skipped"]),
        _threshold(numbers["median_threshold"]),
        "–" if numbers["largest_after"] is None else short(numbers["largest_after"]),
    ]


def as_json(found: Sequence[Replay]) -> list[dict[str, Any]]:
    """Return the same for scripts."""
    return [{"policy": one.name, **_numbers(one)} for one in found]


def _threshold(median: float | None) -> str:
    if median is None:
        return "each"
    return short(median) if math.isfinite(median) else "none"


def _numbers(one: Replay) -> dict[str, Any]:
    """Return the shares of steps, the median and last threshold (None: one for each parameter), the largest norm."""
    limits = one.max_norm
    after = one.after[np.isfinite(one.after)]
    return {
        "clipped": float(one.clipped.mean()),
        "skipped": float(one.skipped.mean()),
        "median_threshold": None if limits is None else float(np.median(limits)),
        "last_threshold": None if limits is None else float(limits[-1]),
        "largest_after": float(after.max()) if after.size else None,
    }
