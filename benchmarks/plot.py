"""The results of a run as one figure: how many times as fast gradclip is, and how fast the floor is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks import units
from benchmarks.report import Report
from benchmarks.timing import Result

# Okabe and Ito's colours, which colour-blind people can distinguish too.
_BAR = {"NumPy": "#0072B2", "torch": "#D55E00", "JAX": "#009E73"}
_OTHER = "#CC79A7"
_INK, _MUTED, _GRID = "#222222", "#6b6b6b", "#e4e4e4"
_LEFT, _FIRST, _SECOND = -0.52, 1.1, 1.2  # positions of text beside the axes, in units of their width
_TITLE = "Clipping gradients: how many times as fast as the framework's own way"


def write(report: Report, path: Path) -> None:
    """Draw a bar for each row that has a peer: its length is the first peer's time over ours, on a logarithmic axis."""
    results = [result for result in report.speed if result.peers]
    places = _places(results)
    limits = _limits(results)
    height = 0.8 + 0.27 * (places[-1] if places else 1)
    with mpl.rc_context({"font.size": 9, "axes.linewidth": 0.6}):
        figure = Figure(figsize=(7.5, height))
        axes = figure.add_axes((0, 0, 1, 1))  # saving the figure includes the text around the axes
        for at, result in zip(places, results, strict=True):
            _bar(axes, at, result, limits)
        _dress(axes, places, results, limits)
        _legend(axes, results, above=0.5 / height)
        axes.text(_LEFT, 1 + 1.4 / height, _TITLE, transform=axes.transAxes, fontsize=13, fontweight="bold")
        axes.text(_LEFT, -0.5 / height, _note(report), transform=axes.transAxes, fontsize=8, color=_MUTED)
        figure.savefig(path, dpi=150, facecolor="white", bbox_inches="tight", pad_inches=0.25)


def _note(report: Report) -> str:
    m = report.machine
    note = f"{m['cpu']}, {m['cores']} cores; commit {m['commit']}, {str(m['date'])[:10]}"
    return f"{note}; {report.caveat}" if report.caveat else note


def _places(results: Sequence[Result]) -> list[float]:
    """Return the position of each bar, from the top, with a gap before each framework."""
    places: list[float] = []
    for before, result in zip([None, *results], results, strict=False):
        step = 1.0 if before and before.row.framework == result.row.framework else 1.9
        places.append(places[-1] + step if places else 0.0)
    return places


def _limits(results: Sequence[Result]) -> tuple[float, float]:
    ratios = [result.peers[0].speedup for result in results]
    return min([0.5, *(r.low * 0.7 for r in ratios)]), max([4.0, *(r.high * 2 for r in ratios)])


def _bar(axes: Axes, at: float, result: Result, limits: tuple[float, float]) -> None:
    ratio = result.peers[0].speedup
    axes.barh(at, ratio.median - 1, left=1, height=0.66, color=_BAR.get(result.row.framework, _OTHER), zorder=2)
    axes.plot([ratio.low, ratio.high], [at, at], color=_INK, linewidth=1, zorder=4)
    _beside(axes, at, _FIRST, units.times(ratio.median), fontweight="bold")
    for budget in result.row.budgets:
        if budget.against == result.peers[0].name:
            axes.plot(budget.speedup, at + 0.46, marker="^", markersize=5, color=_INK, zorder=5)
    if result.floor is not None:
        floor = ratio.median / result.floor.speedup.median  # how many times as fast as the peer the floor is
        _beside(axes, at, _SECOND, units.times(floor), color=_MUTED)
        if floor > limits[1]:
            axes.plot(limits[1], at, marker=">", markersize=5, color=_INK, clip_on=False, zorder=3)
        else:
            axes.plot([floor, floor], [at - 0.42, at + 0.42], color=_INK, linewidth=2, zorder=3)


def _beside(axes: Axes, at: float, column: float, text: str, **style: Any) -> None:
    """Write into a column at the right of the axes."""
    axes.text(column, at, text, transform=axes.get_yaxis_transform(), ha="right", va="center", **style)


def _dress(axes: Axes, places: Sequence[float], results: Sequence[Result], limits: tuple[float, float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.set_ylim((places[-1] if places else 0) + 0.8, -0.8)
    axes.set_yticks(places, [f"{result.row.operation}   {result.row.work}" for result in results])
    ticks = [tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if limits[0] <= tick <= limits[1]]
    axes.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    axes.minorticks_off()
    axes.tick_params(length=0, top=True, labeltop=True)
    axes.grid(axis="x", color=_GRID, linewidth=0.8, zorder=0)
    axes.axvline(1, color=_INK, linewidth=1, zorder=3)
    axes.spines[:].set_visible(False)
    _beside(axes, -1.35, _FIRST, "gradclip", fontweight="bold")
    _beside(axes, -1.35, _SECOND, "floor", color=_MUTED)


def _legend(axes: Axes, results: Sequence[Result], above: float) -> None:
    names = dict.fromkeys(result.row.framework for result in results)
    bars = [Patch(color=_BAR.get(name, _OTHER), label=name) for name in names]
    line: dict[str, Any] = {"color": _INK, "linestyle": ""}
    marks = [
        Line2D([], [], color=_INK, linewidth=1, label="quartiles"),
        Line2D(
            [],
            [],
            marker="|",
            markersize=9,
            markeredgewidth=2,
            label="the floor (▸ beyond the axis)",
            **line,
        ),
        Line2D([], [], marker="^", markersize=5, label="budget", **line),
    ]
    axes.legend(
        handles=[*bars, *marks],
        ncols=2,
        loc="lower left",
        bbox_to_anchor=(_LEFT, 1 + above),
        borderaxespad=0,
        borderpad=0,
        frameon=False,
    )
