"""``gradclip watch``: the norms in the terminal while a run writes its log."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from gradclip._cli.marks import recorded
from gradclip._cli.words import percent, short
from gradclip.monitor._files import Follow, ReadError
from gradclip.monitor._history import History

if TYPE_CHECKING:
    from pathlib import Path

    from gradclip._cli.logs import Columns

__all__ = ["watch"]

SIDE: Final = 12
"""Columns beside the plot, for its frame and the labels of its axis."""

COLOURS: Final = ("blue", "yellow", "red")

_POWER: Final = re.compile(r"10\^(-?[\d.]+)")
"""A label such as 10^0.5 on a logarithmic axis."""


def watch(path: Path, columns: Columns, console: Console, *, every: float, last: int | None, once: bool) -> None:
    """Show the norms until Ctrl-C: a plot on a terminal, else a line for each time that the log has grown.

    Parameters
    ----------
    path
        The log; it need not exist yet.
    columns
        What to read from it.
    console
        Where to show it.
    every
        Seconds between two looks at the log.
    last
        How many steps to show; None: all.
    once
        Whether to show the log as it is now, and return.

    Raises
    ------
    ReadError, OSError
        If the log cannot be read. A log that is not there yet, or holds no norms yet, is waited for unless ``once``.
    """
    follow = Follow(path, norm=columns.norm, loss=columns.loss, pattern=columns.pattern)
    if once:
        history = follow.poll()
        assert history is not None
        console.print(_plot(_last(history, last), console, path))
        return
    try:
        if console.is_terminal:
            _on_terminal(follow, console, path, every, last)
        else:
            _as_lines(follow, console, every)
    except KeyboardInterrupt:
        return


def _on_terminal(follow: Follow, console: Console, path: Path, every: float, last: int | None) -> None:
    with Live(Text(f"waiting for {path}"), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        shown: History | None = None
        size = console.size
        while True:
            history, reason = _poll(follow)
            if history is not None:
                shown = _last(history, last)
            elif reason and shown is None:
                live.update(Text(f"waiting for norms: {reason}"), refresh=True)
            if shown is not None and (history is not None or console.size != size):
                size = console.size
                live.update(_plot(shown, console, path), refresh=True)
            time.sleep(every)


def _as_lines(follow: Follow, console: Console, every: float) -> None:
    while True:
        history, _ = _poll(follow)
        if history is not None:
            console.print(_state(history), soft_wrap=True)
        time.sleep(every)


def _poll(follow: Follow) -> tuple[History | None, str]:
    """Return the history if the log has changed, and why there is none."""
    try:
        return follow.poll(), ""
    except FileNotFoundError:
        return None, "the file does not exist yet"
    except ReadError as error:
        return None, str(error)


def _last(history: History, count: int | None) -> History:
    """Return the last steps of a history."""
    if count is None or count >= history.step.size:
        return history

    def cut(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[-count:]

    return History(
        step=history.step[-count:],
        norm=history.norm[-count:],
        max_norm=cut(history.max_norm),
        coefficient=cut(history.coefficient),
        loss=cut(history.loss),
        clipped=cut(history.clipped),
        skipped=cut(history.skipped),
        parameters={},
    )


def _plot(history: History, console: Console, path: Path) -> Group:
    """Return the plot, as large as the terminal allows, and a line that says where the run is."""
    from uniplot import plot_to_string

    marks = recorded(history)
    shown = np.isfinite(history.norm) & (history.norm > 0)
    title = Text(f"{path.name}: gradient norm", style="bold", overflow="ellipsis", no_wrap=True)
    if not shown.any():
        return Group(title, Text("no finite norm above zero yet"), _state(history))
    high = shown & ~marks.clipped & ~marks.skipped
    series = [(history.step[high], history.norm[high])]
    over = shown & (marks.clipped | marks.skipped)
    if over.any():
        series.append((history.step[over], history.norm[over]))
    lines = [False] * len(series)
    if marks.max_norm is not None and (known := np.isfinite(marks.max_norm) & (marks.max_norm > 0)).any():
        series.append((history.step[known], marks.max_norm[known]))
        lines.append(True)
    colours = [COLOURS[0], *([COLOURS[1]] if over.any() else []), *([COLOURS[2]] if lines[-1] else [])]
    text = plot_to_string(
        [ys for _, ys in series],
        [xs for xs, _ in series],
        lines=lines,
        y_as_log=True,
        x_gridlines=[],
        y_gridlines=[],
        width=max(20, console.width - SIDE),
        height=max(5, min(18, console.height - 6)),
        color=False if console.no_color or not console.is_terminal else colours,
    )
    text = _POWER.sub(lambda power: short(10 ** float(power[1])), text)
    return Group(title, Text.from_ansi(text, no_wrap=True), _legend(bool(over.any()), lines[-1]), _state(history))


def _legend(over: bool, threshold: bool) -> Text:
    text = Text("norm", style=COLOURS[0])
    if over:
        text.append("  ").append("clipped or skipped", style=COLOURS[1])
    if threshold:
        text.append("  ").append("max_norm", style=COLOURS[2])
    return text


def _state(history: History) -> Text:
    """Return for example "step 1,200  norm 0.52  median 0.47  clipped 3.1 %  loss 2.31"."""
    marks = recorded(history)
    finite = history.norm[np.isfinite(history.norm)]
    parts = [f"step {history.step[-1]:,}", f"norm {short(float(history.norm[-1]))}"]
    if finite.size:
        parts.append(f"median {short(float(np.median(finite)))}")
    if marks.max_norm is not None or history.clipped is not None:
        parts.append(f"clipped {percent(float(marks.clipped.mean()))}")
    if history.skipped is not None:
        parts.append(f"skipped {int(marks.skipped.sum()):,}")
    if finite.size < history.norm.size:
        parts.append(f"NaN or inf {history.norm.size - finite.size:,}")
    if history.loss is not None:
        losses = history.loss[np.isfinite(history.loss)]
        parts += [f"loss {short(float(losses[-1]))}"] if losses.size else []
    return Text("  ".join(parts))
