"""The figure of ``gradclip compare``: for each policy its thresholds over the norms, and how much it clips."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from gradclip._cli.figures.series import draw_series
from gradclip._cli.figures.style import LIGHT, SERIES, log_axis, new_figure, step_axis
from gradclip._cli.words import counted, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradclip._cli.replay import Replay
    from gradclip.monitor._history import History

__all__ = ["draw_thresholds"]

ACROSS: Final = 3
TICKS: Final = 4


def draw_thresholds(history: History, replays: Sequence[Replay], title: str) -> Figure:
    """Return the figure of a history that has at least one norm above zero: one panel for each policy."""
    rows = math.ceil(len(replays) / ACROSS)
    made = new_figure(9, 0.8 + 1.75 * rows)
    made.suptitle(_title(history, replays, title), x=0.01, ha="left", fontsize=10)
    made.supylabel("gradient norm", fontsize=9)
    low, high = _range(history, replays)
    panels = made.subplots(rows, ACROSS, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, one, colour in zip(panels, replays, SERIES, strict=False):
        _draw_panel(panel, history, one, colour)
    panels[0].set_yscale("log")
    panels[0].set_ylim(low, high)
    log_axis(panels[0].yaxis, low, high)
    for place, panel in enumerate(panels):
        if place + ACROSS >= len(replays):
            step_axis(panel, TICKS)
            panel.tick_params(labelbottom=True)
        if place >= len(replays):
            panel.remove()
    return made


def _draw_panel(axes: Axes, history: History, one: Replay, colour: str) -> None:
    norms = history.norm
    shown = np.isfinite(norms) & (norms > 0)
    draw_series(axes, history.step[shown], norms[shown], LIGHT, "norm", trend=False)
    curve = one.after if one.max_norm is None else one.max_norm
    known = np.where(np.isfinite(curve) & (curve > 0), curve, np.nan)
    axes.plot(history.step, known, color=colour, lw=1, drawstyle="steps-mid")
    verb = "skipped" if one.skipped.any() else "clipped"
    share = percent(float((one.clipped | one.skipped).mean()))
    axes.set_title(one.name, color=colour, fontsize=9, fontweight="bold")
    axes.set_title(f"{share} {verb}", loc="right", fontsize=8)
    axes.margins(x=0.01)


def _title(history: History, replays: Sequence[Replay], title: str) -> str:
    text = f"{title}, {counted(history.step.size, 'step')}. Grey: norm before clipping. Coloured: threshold"
    single = [one.name for one in replays if one.max_norm is None]
    return f"{text}; {' and '.join(single)}: norm after clipping" if single else text


def _range(history: History, replays: Sequence[Replay]) -> tuple[float, float]:
    curves = [history.norm, *(one.after if one.max_norm is None else one.max_norm for one in replays)]
    values = np.concatenate(curves)
    values = values[np.isfinite(values) & (values > 0)]
    return float(values.min()) / 1.3, float(values.max()) * 1.3
