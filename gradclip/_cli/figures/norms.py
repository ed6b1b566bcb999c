"""The figure of ``gradclip plot``: norms, thresholds and losses over the steps, and how the norms are distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gradclip._cli.figures.labels import spread
from gradclip._cli.figures.series import draw_series
from gradclip._cli.figures.style import (
    CLIPPED,
    GREY,
    LOSS,
    NONFINITE,
    NORM,
    SKIPPED,
    THRESHOLD,
    log_axis,
    new_figure,
    step_axis,
)
from gradclip._cli.words import counted, percent, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradclip._cli.marks import Marks
    from gradclip.monitor._history import History

__all__ = ["draw_norms"]

PERCENTILES: Final = (50, 90, 99)
LABEL_GAP: Final = 0.055
"""Distance of two labels, as a share of the axis."""

MANY_MARKS: Final = 1000

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


def draw_norms(history: History, marks: Marks, title: str) -> Figure:
    """Return the figure of a history that has at least one norm above zero.

    Parameters
    ----------
    history
        The norms, with what else was recorded.
    marks
        The threshold and the steps that it clips or skips.
    title
        What stands above the figure: the name of the log.
    """
    with_loss = history.loss is not None and bool(np.isfinite(history.loss).any())
    made = new_figure(9, 5 if with_loss else 3.6)
    grid = made.add_gridspec(2 if with_loss else 1, 2, width_ratios=[4, 1], height_ratios=[2.2, 1][: 1 + with_loss])
    norms = made.add_subplot(grid[0, 0])
    _draw_steps(norms, history, marks, room_below=0.05 if with_loss else 0.16)
    norms.set_title(f"{title}: {_what(history, marks)}")
    _draw_distribution(made.add_subplot(grid[0, 1], sharey=norms), history)
    last = norms
    if with_loss:
        last = made.add_subplot(grid[1, 0], sharex=norms)
        norms.tick_params(labelbottom=False)
        _draw_loss(last, history)
        beside = made.add_subplot(grid[1, 1])
        beside.set_axis_off()
        beside.legend(*norms.get_legend_handles_labels(), loc="lower left", borderaxespad=0)
    else:
        below = {"ncols": 6, "columnspacing": 0.9, "handletextpad": 0.5, "borderaxespad": 0.2, "fontsize": 7.5}
        norms.legend(loc="lower left", **below).set_in_layout(False)
    step_axis(last)
    made.align_ylabels()
    return made


def _draw_steps(axes: Axes, history: History, marks: Marks, room_below: float) -> None:
    """Draw the norms with the threshold, and mark the steps that were clipped, skipped, or had no finite norm."""
    steps, norms = history.step, history.norm
    shown = np.isfinite(norms) & (norms > 0)
    draw_series(axes, steps[shown], norms[shown], NORM, "norm before clipping")
    low, high = _range(norms[shown], marks, room_below)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    log_axis(axes.yaxis, low, high)
    if marks.max_norm is not None:
        axes.plot(
            steps, marks.max_norm, color=THRESHOLD, lw=1.1, ls=marks.line, label=marks.label, drawstyle="steps-mid"
        )
    _mark(axes, steps, norms, marks.clipped & shown, CLIPPED, "o", marks.verb)
    _mark(axes, steps, norms, marks.skipped & shown, SKIPPED, "X", "skipped")
    broken = ~np.isfinite(norms)
    if broken.any():
        top = np.full(int(broken.sum()), 0.985)
        across = axes.get_xaxis_transform()
        axes.plot(
            steps[broken], top, "v", ms=5, mew=0, color=NONFINITE, label="NaN or inf", clip_on=False, transform=across
        )
    axes.set_ylabel("gradient norm")
    axes.margins(x=0.01)


def _mark(
    axes: Axes, steps: Ints, norms: Floats, where: NDArray[np.bool_], colour: str, marker: str, name: str
) -> None:
    """Mark the norms of some steps; many marks are smaller, and are pixels in a figure of vectors."""
    if where.any():
        many = int(where.sum()) > MANY_MARKS
        size = (1.8 if many else 3.2 if where.sum() < 100 else 2.4) * (1.7 if marker == "X" else 1)
        axes.plot(
            steps[where], norms[where], marker, ms=size, mew=0, color=colour, label=name, zorder=3, rasterized=many
        )


def _range(norms: Floats, marks: Marks, room_below: float) -> tuple[float, float]:
    """Return the limits of the axis: all norms and thresholds, with room below for the legend."""
    low, high = float(norms.min()), float(norms.max())
    if marks.max_norm is not None:
        finite = marks.max_norm[np.isfinite(marks.max_norm) & (marks.max_norm > 0)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    span = max(np.log10(high / low), 0.3)
    return float(low / 10 ** (room_below * span)), float(high * 10 ** (0.08 * span))


def _draw_distribution(axes: Axes, history: History) -> None:
    """Draw a histogram of the norms beside them, with percentiles."""
    norms = history.norm[np.isfinite(history.norm) & (history.norm > 0)]
    low, high = axes.get_ylim()
    axes.hist(norms, np.geomspace(low, high, 49).tolist(), orientation="horizontal", color=NORM, alpha=0.75, lw=0)
    places = [*np.percentile(norms, PERCENTILES), float(norms.max())]
    names = [*(f"{p} %" for p in PERCENTILES), "max"]
    for place in places:
        axes.axhline(place, color=GREY, lw=0.7, ls=(0, (4, 2)))
    heights = np.log(np.array(places) / low) / np.log(high / low)
    for height, place, name in zip(spread(heights, LABEL_GAP), places, names, strict=True):
        axes.text(1.03, height, f"{name}: {short(place)}", va="center", fontsize=8, transform=axes.transAxes)
    axes.tick_params(labelleft=False, left=False)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.set_title("distribution")


def _draw_loss(axes: Axes, history: History) -> None:
    loss = history.loss
    assert loss is not None
    shown = np.isfinite(loss)
    draw_series(axes, history.step[shown], loss[shown], LOSS, "loss")
    low, high = float(loss[shown].min()), float(loss[shown].max())
    if low > 0 and high / low > 30:
        axes.set_yscale("log")
        log_axis(axes.yaxis, *axes.get_ylim())
    axes.set_ylabel("loss")


def _what(history: History, marks: Marks) -> str:
    """Return for example "2,000 steps, 3.1 % clipped, 4 skipped, 1 NaN or inf"."""
    parts = [counted(history.step.size, "step")]
    if marks.max_norm is not None or marks.clipped.any():
        parts.append(f"{percent(float(marks.clipped.mean()))} {marks.verb}")
    if marks.skipped.any():
        parts.append(f"{int(marks.skipped.sum()):,} skipped")
    if broken := int((~np.isfinite(history.norm)).sum()):
        parts.append(f"{broken:,} NaN or inf")
    return ", ".join(parts)
