"""Reading the logs that a command was given: progress, notes and errors."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gradclip.monitor._history import History

__all__ = ["Columns", "fail", "load", "need", "note", "say"]

PROGRESS_FROM_NBYTES = 2**24
"""Logs of 16 MiB and more have a progress bar: they take more than a second."""


@dataclass(frozen=True)
class Columns:
    """What a command reads from a log; None: recognised by the names that trainers use."""

    norm: str | None = None
    loss: str | None = None
    pattern: str | None = None


def load(path: Path, columns: Columns, *, parameters: bool = False) -> History:
    """Read a log. Notes and the progress go to the standard error.

    Raises
    ------
    ReadError, OSError
        As `gradclip.monitor._files.read`.
    """
    from gradclip.monitor._files import read

    errors = Console(stderr=True)
    size = path.stat().st_size
    notes: list[str] = []

    def run(on_progress: Callable[[int], None] | None) -> History:
        return read(
            path,
            norm=columns.norm,
            loss=columns.loss,
            pattern=columns.pattern,
            parameters=parameters,
            on_note=notes.append,
            on_progress=on_progress,
        )

    try:
        if not errors.is_terminal or size < PROGRESS_FROM_NBYTES:
            return run(None)
        return _with_progress(run, errors, path, size)
    finally:
        for text in notes:
            note(f"{path}: {text}")


def note(text: str) -> None:
    """Print a note to the standard error."""
    Console(stderr=True).print(Text("note: ", style="yellow").append(text, style="default"), soft_wrap=True)


def need(package: str, extra: str) -> None:
    """Exit with a line that says how to install a package, if it is missing."""
    if find_spec(package) is None:
        say(
            ValueError(
                f'this command needs {package}, which the extra {extra!r} installs: pip install "gradclip[{extra}]"'
            )
        )
        raise typer.Exit(1)


def fail(error: Exception) -> NoReturn:
    """Print an error without a stack trace, and exit."""
    say(error)
    raise typer.Exit(1)


def say(error: Exception) -> None:
    """Print an error without a stack trace."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error)
    Console(stderr=True).print(Text("gradclip: ", style="red").append(text, style="default"), soft_wrap=True)


def _with_progress(run: Callable[[Callable[[int], None]], History], errors: Console, path: Path, size: int) -> History:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(None), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as bars:
        task = bars.add_task(f"reading {path.name}", total=size)
        return run(lambda done: bars.update(task, completed=done))
