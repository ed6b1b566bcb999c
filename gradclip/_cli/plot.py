"""``gradclip plot`` and the figure of ``gradclip compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradclip._cli.figures.norms import draw_norms
from gradclip._cli.figures.parameters import draw_parameters
from gradclip._cli.figures.style import save, styled
from gradclip._cli.figures.thresholds import draw_thresholds
from gradclip._cli.marks import Marks, recorded, with_threshold
from gradclip._cli.words import short
from gradclip.monitor import History, suggest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gradclip._cli.replay import Replay

__all__ = ["draw", "draw_comparison"]


def draw(history: History, name: str, output: Path, *, parameters: bool, max_norm: float | None) -> None:
    """Draw the norms of a log to a file.

    Raises
    ------
    ValueError
        If there is nothing that can be drawn.
    OSError
        If the file cannot be written.
    """
    if parameters and not history.parameters:
        raise ValueError(
            f"{name}: no norms of parameters, such as columns grad_norm/<parameter>. gradclip's monitor "
            "can write them, and Lightning's grad_norm() gives them"
        )
    _check(history, name)
    with styled():
        figure = draw_parameters(history, name) if parameters else draw_norms(history, _marks(history, max_norm), name)
        save(figure, output)


def draw_comparison(history: History, found: Sequence[Replay], name: str, output: Path) -> None:
    """Draw the thresholds of policies to a file.

    Raises
    ------
    ValueError, OSError
        As `draw`.
    """
    _check(history, name)
    with styled():
        save(draw_thresholds(history, found, name), output)


def _check(history: History, name: str) -> None:
    if not (np.isfinite(history.norm) & (history.norm > 0)).any():
        raise ValueError(f"{name}: no finite norm above zero, so that there is nothing to draw")


def _marks(history: History, max_norm: float | None) -> Marks:
    """Return the threshold that was asked for, or that was recorded, or that is suggested."""
    if max_norm is not None:
        return with_threshold(history, max_norm, f"max_norm {short(max_norm)}")
    marks = recorded(history)
    if marks.max_norm is not None or marks.clipped.any():
        return marks
    suggested = suggest(history).max_norm
    return marks if suggested is None else with_threshold(history, suggested, f"suggested max_norm {short(suggested)}")
