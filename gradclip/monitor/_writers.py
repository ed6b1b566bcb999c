"""Writers: what a monitor recorded, into JSON Lines, CSV, or a writer of TensorBoard's kind."""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gradclip._words import kind, short

Logged = Sequence[tuple[int, Mapping[str, float]]]
"""Steps, and the numbers of each by the names that loggers show."""


@runtime_checkable
class ScalarWriter(Protocol):
    """What has ``add_scalar``, as ``torch.utils.tensorboard.SummaryWriter`` does."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Write a number."""
        ...


class Writer(Protocol):
    """Writes steps."""

    def write(self, rows: Logged) -> None:
        """Write steps, so that they survive a crash of this process."""
        ...


class JsonLines:
    """Appends one JSON object for each step to a file. The file is closed between writes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, rows: Logged) -> None:
        """Append a line for each step. NaN and inf are strings, because JSON has no such numbers."""
        lines = [
            json.dumps({"step": step, **{name: x if math.isfinite(x) else str(x) for name, x in values.items()}})
            for step, values in rows
        ]
        _append(self._path, "".join(line + "\n" for line in lines))


class Csv:
    """Appends one row for each step to a file, whose first line names the columns. It is closed between writes.

    A file that is there keeps its columns. If a step has others, the file is written anew with these too: into another
    file first, which then takes its place.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, rows: Logged) -> None:
        """Append a row for each step. A column that a step lacks stays empty."""
        columns = _header(self._path)
        new = [
            name for name in dict.fromkeys(["step", *(name for _, row in rows for name in row)]) if name not in columns
        ]
        if columns and new:
            _widen(self._path, [*columns, *new])
        header = "" if columns else _line(new)
        columns = [*columns, *new]
        lines = [_line([step if name == "step" else row.get(name, "") for name in columns]) for step, row in rows]
        _append(self._path, header + "".join(lines))


class Scalars:
    """Writes to an object that has ``add_scalar``."""

    def __init__(self, writer: ScalarWriter) -> None:
        self._writer = writer

    def write(self, rows: Logged) -> None:
        """Write each value under its name, and flush the writer if it can be flushed."""
        for step, values in rows:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        flush = getattr(self._writer, "flush", None)
        if callable(flush):
            flush()


def writers_of(targets: object) -> list[Writer]:
    """Return a writer for each target, as `writer_of` does; a single target needs no list."""
    if isinstance(targets, Iterable) and not isinstance(targets, str | os.PathLike):
        return list(map(writer_of, targets))
    return [writer_of(targets)]


def writer_of(target: object) -> Writer:
    """Return a writer for a path, by its suffix, or for an object with ``add_scalar``.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If the suffix is unknown, or there is no such folder.
    """
    if isinstance(target, str | os.PathLike):
        path = Path(target)
        kinds: dict[str, Callable[[Path], Writer]] = {".jsonl": JsonLines, ".ndjson": JsonLines, ".csv": Csv}
        if path.suffix not in kinds:
            raise ValueError(f"{path} has the suffix {short(path.suffix)}, expected .jsonl or .csv; rename it")
        if not path.parent.is_dir():
            raise ValueError(f"{path} is in a folder that is not there, expected one that is; create {path.parent}")
        return kinds[path.suffix](path)
    if isinstance(target, ScalarWriter):
        return Scalars(target)
    raise TypeError(
        f"a writer is {kind(target)}, expected a path that ends in .jsonl or .csv, or an object with add_scalar(), as "
        "torch.utils.tensorboard.SummaryWriter has it; pass one of these"
    )


def _append(path: Path, text: str) -> None:
    """Append text to a file, on a line of its own even if a crash left the last one incomplete."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(text.encode())


def _line(cells: Sequence[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _header(path: Path) -> list[str]:
    """Return the columns of a file; none if it is empty or not there."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file), [])


def _widen(path: Path, columns: Sequence[str]) -> None:
    """Write a file anew with more columns, which stay empty in the rows that are there."""
    wider = path.with_name(path.name + ".new")
    with path.open(encoding="utf-8", newline="") as rows, wider.open("w", encoding="utf-8", newline="") as out:
        empty = "," * (len(columns) - len(next(csv.reader(rows))))
        out.write(_line(columns))
        out.writelines(line.rstrip("\r\n") + empty + "\n" for line in rows)
    wider.replace(path)
