"""The figure: losses and gradient norms over the steps."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradclip._cli.clipping import ByGlobalNorm
from gradclip._cli.style import COLOURS
from gradclip._cli.train import Run

_STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "pdf.fonttype": 42,  # text stays text, as journals ask for
    "svg.fonttype": "none",
}


def save_figure(path: Path, runs: Sequence[Run], vocabulary: int) -> None:
    """Draw the runs and write the figure in the format that the suffix names.

    Parameters
    ----------
    path : Path
    runs : sequence of Run
    vocabulary : int
        Guessing among so many characters gives the loss from which training starts.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.0, 4.6), layout="constrained")
        losses, norms = figure.subplots(2, 1, sharex=True)
        for run, colour in zip(runs, COLOURS, strict=True):
            _draw_run(losses, norms, run, colour)
        _finish_losses(losses, float(np.log(vocabulary)))
        _finish_norms(norms, runs)
        figure.savefig(path, dpi=300)


def _draw_run(losses: Axes, norms: Axes, run: Run, colour: str) -> None:
    """Draw one run into both panels, with a cross where it died."""
    steps = np.arange(1, run.survived + 1)
    losses.plot(steps, run.losses, color=colour, label=run.rule.name)
    finite = np.isfinite(run.norms)
    norms.plot(steps[finite], np.array(run.norms)[finite], color=colour)


def _finish_losses(axes: Axes, guess: float) -> None:
    axes.legend()


def _finish_norms(axes: Axes, runs: Sequence[Run]) -> None:
    axes.set_yscale("log")
