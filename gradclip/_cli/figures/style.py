"""What all figures share: colours, sizes, axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from gradclip._cli.words import short

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = [
    "CLIPPED",
    "GREY",
    "LIGHT",
    "LOSS",
    "NONFINITE",
    "NORM",
    "SERIES",
    "SKIPPED",
    "THRESHOLD",
    "log_axis",
    "new_figure",
    "save",
    "step_axis",
    "styled",
]

NORM = "#0072B2"
THRESHOLD = "#000000"
CLIPPED = "#E69F00"
SKIPPED = "#D55E00"
NONFINITE = "#CC79A7"
LOSS = "#4D4D4D"
GREY = "#8C8C8C"
LIGHT = "#B0B0B0"
SERIES = ("#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#882255", "#999933")
"""Colours from the palette of Okabe and Ito, which colour-blind readers can distinguish; two more are Tol's."""

_STYLE: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.4,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def styled() -> AbstractContextManager[None]:
    """Return a context in which figures have this style."""
    return mpl.rc_context(_STYLE)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure; sizes in inches."""
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def save(made: Figure, path: Path) -> None:
    """Write a figure in the format of the file's name: png, svg or pdf."""
    made.savefig(path, dpi=200, format=path.suffix.lower().removeprefix("."))


def log_axis(axis: Axis, low: float, high: float) -> None:
    """Give a logarithmic axis from ``low`` to ``high`` labels that can be read, also within one decade."""
    decades = math.log10(high / low)
    if decades > 1.3:
        axis.set_major_locator(LogLocator(10, numticks=7))
        axis.set_minor_locator(LogLocator(10, subs=(2, 5), numticks=7 if decades < 4 else 3))
    else:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())


def step_axis(axes: Axes, ticks: int = 7) -> None:
    """Label the axis of steps."""
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
