"""The figure: losses and gradient norms over the steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter
from numpy.typing import NDArray

from demo.clipping import ByGlobalNorm
from demo.style import COLOURS
from demo.train import Run

_STYLE: Any = {
    "font.size": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "legend.frameon": False,
    "lines.linewidth": 0.9,
    "pdf.fonttype": 42,  # text stays text in the file, as journals require
    "svg.fonttype": "none",
}
_GREY = "0.35"
_LAYERS = (4, 3, 2)  # the run that ends early is on top, because others would hide it
_SMALLEST_WINDOW, _WINDOW = 3, 0.05
_HIGHEST_LOSS = 1.5
"""The end of the loss axis, in units of the loss of a guess. Higher losses are outside of the chart."""


def save_figure(path: Path, runs: Sequence[Run], vocabulary: int) -> None:
    """Draw the runs and write the figure in the format that the suffix names.

    The axis of steps is logarithmic, because an explosion takes a few dozen steps and learning takes all.

    Parameters
    ----------
    path : Path
    runs : sequence of Run
    vocabulary : int
        The number of characters. The loss of a guess among them is the loss at the start.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.0, 4.8), layout="constrained")
        losses, norms = figure.subplots(2, 1, sharex=True)
        _draw_losses(losses, runs, float(np.log(vocabulary)))
        _draw_norms(norms, runs)
        norms.set_xscale("log")
        norms.set_xlim(1, max(2, runs[0].steps))
        norms.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        norms.set_xlabel("training step")
        figure.align_ylabels()
        figure.savefig(path, dpi=300)


def _draw_losses(axes: Axes, runs: Sequence[Run], guess: float) -> None:
    """Draw the losses, up to a little above that of a guess. For a complete run, pale, with their median on top."""
    top = _HIGHEST_LOSS * guess
    for run, colour, layer in zip(runs, COLOURS, _LAYERS, strict=True):
        steps = np.arange(1, run.survived + 1)
        if run.fatal is None:
            axes.plot(steps, run.losses, color=colour, alpha=0.4, linewidth=0.6, zorder=layer)
            axes.plot(steps, _course(run.losses), color=colour, linewidth=1.4, zorder=layer + 0.5, label=run.rule.name)
        else:
            axes.plot(steps, run.losses, color=colour, linewidth=1.4, zorder=layer, label=run.rule.name)
            _mark_death(axes, run, colour, top)
    axes.axhline(guess, color=_GREY, linewidth=0.8, linestyle=":", zorder=1)
    _label(axes, guess, "random guessing")
    axes.set_ylim(0, top)
    axes.set_ylabel("loss (nats per character)")
    axes.legend(loc="lower left")


def _draw_norms(axes: Axes, runs: Sequence[Run]) -> None:
    """Draw the finite norms, the threshold, and the step at which a run ended."""
    for run, colour, layer in zip(runs, COLOURS, _LAYERS, strict=True):
        norms = np.array(run.norms)
        shown = np.isfinite(norms) & (norms > 0)
        steps = np.arange(1, run.survived + 1)[shown]
        axes.plot(steps, norms[shown], color=colour, zorder=layer)
        if run.fatal is not None and len(steps):
            axes.plot(steps[-1:], norms[shown][-1:], marker="X", color=colour, markersize=7, zorder=9)
        if isinstance(run.rule, ByGlobalNorm):
            axes.axhline(run.rule.max_norm, color=_GREY, linewidth=0.8, linestyle="--", zorder=1)
            _label(axes, run.rule.max_norm, f"max_norm = {run.rule.max_norm:g}")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.set_ylabel("gradient norm before clipping")


def _course(losses: Sequence[float]) -> NDArray[np.float64]:
    """Return the running median over a window that grows with the step, as the spacing on the axis shrinks."""
    values = np.asarray(losses)
    widths = [max(_SMALLEST_WINDOW, int(_WINDOW * step)) for step in range(len(values))]
    return np.array([np.median(values[max(0, i - w) : i + w + 1]) for i, w in enumerate(widths)])


def _mark_death(axes: Axes, run: Run, colour: str, top: float) -> None:
    """Mark the step whose loss is not finite at the upper edge, with text on the side that has more space."""
    step = run.survived + 1
    axes.plot([step], [top], marker="X", color=colour, markersize=7, clip_on=False, zorder=9)
    left = step**2 > run.steps
    axes.annotate(
        f"{run.rule.name}: loss is {run.fatal} at step {step:,}",
        (step, top),
        (-7 if left else 7, 2),
        textcoords="offset points",
        ha="right" if left else "left",
        va="bottom",
        color=colour,
    )


def _label(axes: Axes, height: float, text: str) -> None:
    """Write the label of a horizontal line above its left end."""
    axes.annotate(
        text,
        (0, height),
        (4, 3),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        color=_GREY,
        fontsize=8,
    )
