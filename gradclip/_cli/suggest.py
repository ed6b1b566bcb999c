"""``gradclip suggest``: a max_norm for each log, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.text import Text

from gradclip._cli.tables import print_table
from gradclip._cli.words import counted, short
from gradclip.monitor import suggest

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from gradclip.monitor import History, Suggestion

__all__ = ["as_json", "show"]

PERCENTILES: Final = (1, 10, 50, 90, 95, 99)


def show(console: Console, path: Path, history: History, share: float) -> None:
    """Print what is suggested for a log, and the percentiles of its norms."""
    suggestion = suggest(history, share=share)
    console.print(Text(f"{path}", style="bold").append(f"  {counted(history.step.size, 'step')}", style="default"))
    console.print(_headline(suggestion))
    console.print(Text(suggestion.reason), soft_wrap=not console.is_terminal)
    if values := _values(history):
        titles = [f"{percentile} %" if percentile < 100 else "max" for percentile, _ in values]
        print_table(console, titles, [[short(value) for _, value in values]])


def as_json(path: Path, history: History, share: float) -> dict[str, Any]:
    """Return the same for scripts; numbers that JSON lacks are None."""
    suggestion = suggest(history, share=share)
    return {
        "file": str(path),
        "steps": int(history.step.size),
        "verdict": suggestion.verdict,
        "max_norm": suggestion.max_norm,
        "reason": suggestion.reason,
        "steady_from": suggestion.steady_from,
        "explodes_at": suggestion.explodes_at,
        "clipped": suggestion.share,
        "share": share,
        "nonfinite": int((~np.isfinite(history.norm)).sum()),
        "percentiles": {f"{p:g}": value for p, value in _values(history)},
    }


def _headline(suggestion: Suggestion) -> Text:
    if suggestion.verdict == "clip" and suggestion.max_norm is not None:
        return Text(f"max_norm = {short(suggestion.max_norm)}", style="bold green")
    said = {"exploding": "gradients explode", "do not clip": "do not clip", "unknown": "no max_norm"}
    found = Text(said.get(suggestion.verdict, "no max_norm"), style="bold yellow")
    return found if suggestion.max_norm is None else found.append(f"; before: max_norm = {short(suggestion.max_norm)}")


def _values(history: History) -> list[tuple[int, float]]:
    finite = history.norm[np.isfinite(history.norm)]
    if not finite.size:
        return []
    values = np.percentile(finite, (*PERCENTILES, 100)).tolist()
    return list(zip((*PERCENTILES, 100), values, strict=True))
