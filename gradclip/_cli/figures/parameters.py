"""The figure of ``gradclip plot --parameters``: the norm of each parameter over the steps, and their shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from gradclip._cli.figures.style import NORM, log_axis, new_figure, step_axis
from gradclip._cli.words import counted, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradclip.monitor._history import History

__all__ = ["draw_parameters"]

ROWS: Final = 40
"""The most parameters in a figure: those with the largest shares, in the order of the model."""

COLUMNS: Final = 400
LONGEST_NAME: Final = 36

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class _Rows:
    """Norms of the parameters that are shown: the largest in each of up to `COLUMNS` bins of steps."""

    names: list[str]
    norms: Floats
    shares: Floats
    edges: NDArray[np.int64]


def draw_parameters(history: History, title: str) -> Figure:
    """Return the figure of a history that has norms of parameters."""
    rows = _rows(history)
    count, total = len(rows.names), len(history.parameters)
    made = new_figure(9, 1.5 + 0.19 * max(count, 8))
    grid = made.add_gridspec(1, 2, width_ratios=[3.4, 1])
    heat, bars = made.add_subplot(grid[0, 0]), made.add_subplot(grid[0, 1])
    _draw_norms(made, heat, rows)
    which = f"{count} of {counted(total, 'parameter')}" if count < total else counted(total, "parameter")
    heat.set_title(f"{title}: {which}, {counted(history.step.size, 'step')}")
    _draw_shares(bars, rows)
    bars.set_ylim(heat.get_ylim())
    return made


def _draw_norms(made: Figure, axes: Axes, rows: _Rows) -> None:
    """Draw the norm of each parameter over the steps as a colour."""
    positive = rows.norms[(rows.norms > 0) & (rows.norms < np.inf)]
    low, high = np.percentile(positive, [1, 100]) if positive.size else (0.1, 1.0)
    high = max(high, low * 1.01)
    edges, scale = np.arange(len(rows.names) + 1) - 0.5, LogNorm(low, high)
    mesh = axes.pcolormesh(rows.edges, edges, rows.norms, norm=scale, cmap="viridis", rasterized=True)
    axes.set_yticks(range(len(rows.names)), [_shortened(name) for name in rows.names], fontsize=7)
    axes.invert_yaxis()
    axes.grid(visible=False)
    step_axis(axes)
    bar = made.colorbar(mesh, ax=axes, location="right", pad=0.01, fraction=0.035, aspect=30)
    log_axis(bar.ax.yaxis, low, high)
    bar.set_label("gradient norm", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _draw_shares(axes: Axes, rows: _Rows) -> None:
    """Draw the share of each parameter in the squared norm as a bar, and write the five largest beside theirs."""
    axes.barh(range(len(rows.names)), rows.shares, color=NORM, height=0.7)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    axes.set_xlabel("% of the squared norm")
    axes.set_title("median share")
    room = float(rows.shares.max() or 1.0)
    axes.set_xlim(0, room * 1.22)
    for row in np.argsort(rows.shares)[::-1][:5]:
        share = float(rows.shares[row])
        axes.text(share + room * 0.02, row, percent(share), va="center", fontsize=7)


def _rows(history: History) -> _Rows:
    names = list(history.parameters)
    norms = np.stack([history.parameters[name] for name in names])
    squares = np.where(np.isfinite(norms), norms, 0.0) ** 2
    total = squares.sum(0)
    seen = total > 0
    shares = np.median(squares[:, seen] / total[seen], axis=1) if seen.any() else np.zeros(len(names))
    shown = np.sort(np.argsort(-shares, kind="stable")[:ROWS])
    places = np.unique(np.linspace(0, history.step.size, COLUMNS + 1).astype(int))[:-1]
    largest = np.fmax.reduceat(norms[shown], places, axis=1)
    steps = history.step
    edges = np.append(steps[places], steps[-1] + (steps[-1] - steps[-2] if steps.size > 1 else 1))
    return _Rows([names[i] for i in shown], np.where(largest > 0, largest, np.nan), shares[shown], edges)


def _shortened(name: str) -> str:
    """Return a name with its middle left out if it is long."""
    half = (LONGEST_NAME - 1) // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[-half:]}"
