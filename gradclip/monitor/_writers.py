"""Writers: what a monitor recorded, into JSON Lines, CSV, or a writer of TensorBoard's kind."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class ScalarWriter(Protocol):
    """What has ``add_scalar``, as ``torch.utils.tensorboard.SummaryWriter`` does."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Write a number."""
        ...


class Writer(Protocol):
    """Writes one step."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step."""
        ...


class JsonLines:
    """Appends one JSON object a step to a file. Each step is flushed, so that a crash loses none."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line; NaN and inf are written as strings, because JSON has no such numbers."""
        shown = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **shown}) + "\n")
        self._file.flush()


class Csv:
    """Appends one row a step to a file. Its columns are those of the first step, or of the file that is there."""

    def __init__(self, path: Path) -> None:
        self._columns = _header(path)
        self._file = path.open("a", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file)
        self._path = path

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a row; a column that this step lacks stays empty.

        Raises
        ------
        ValueError
            If the step has a value for which there is no column.
        """
        if not self._columns:
            self._columns = ["step", *values]
            self._rows.writerow(self._columns)
        unknown = [name for name in values if name not in self._columns]
        if unknown:
            raise ValueError(
                f"{self._path} has no column {unknown[0]!r}, expected those of its first line: "
                f"{', '.join(self._columns)}; write into another file, or as JSON Lines, which needs no columns"
            )
        row = {"step": step, **values}
        self._rows.writerow([row.get(name, "") for name in self._columns])
        self._file.flush()


class Scalars:
    """Writes to what has ``add_scalar``."""

    def __init__(self, writer: ScalarWriter) -> None:
        self._writer = writer

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write each value under its name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)


def writer_of(target: object) -> Writer:
    """Return a writer for a path, by its suffix, or for an object with ``add_scalar``.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If the suffix is unknown.
    """
    if isinstance(target, str | Path):
        path = Path(target)
        kinds = {".jsonl": JsonLines, ".ndjson": JsonLines, ".csv": Csv}
        if path.suffix not in kinds:
            raise ValueError(f"{path} has the suffix {path.suffix!r}, expected .jsonl or .csv; rename it")
        return kinds[path.suffix](path)
    if isinstance(target, ScalarWriter):
        return Scalars(target)
    raise TypeError(
        f"a writer is {target!r}, expected a path that ends in .jsonl or .csv, or an object with add_scalar(), such as "
        "torch.utils.tensorboard.SummaryWriter; pass one of these"
    )


def _header(path: Path) -> list[str]:
    """Return the columns of a file that is there; none if it is empty or not there."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file), [])
