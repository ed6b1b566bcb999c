"""Writers: what a monitor recorded, into JSON Lines, CSV, or a writer of TensorBoard's kind."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable


@runtime_checkable
class ScalarWriter(Protocol):
    """What has ``add_scalar``, as ``torch.utils.tensorboard.SummaryWriter`` does."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Write a number."""
        ...


Steps: TypeAlias = Sequence[tuple[int, Mapping[str, float]]]
"""The numbers of steps, each with its values by name."""


class Writer(Protocol):
    """Writes steps."""

    def write(self, steps: Steps) -> None:
        """Write the values of some steps."""
        ...


class JsonLines:
    """Appends one JSON object a step to a file, which is open only while it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, steps: Steps) -> None:
        """Append lines; NaN and inf are written as strings, because JSON has no such numbers."""
        with self._path.open("a", encoding="utf-8") as file:
            for step, values in steps:
                shown = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
                file.write(json.dumps({"step": step, **shown}) + "\n")


class Csv:
    """Appends one row a step to a file. Its columns are those of the first step, or of the file that is there."""

    def __init__(self, path: Path) -> None:
        self._path, self._columns = path, _header(path)

    def write(self, steps: Steps) -> None:
        """Append rows; a column that a step lacks stays empty.

        Raises
        ------
        ValueError
            If a step has a value for which there is no column.
        """
        with self._path.open("a", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            for step, values in steps:
                if not self._columns:
                    self._columns = ["step", *values]
                    rows.writerow(self._columns)
                self._check(values)
                row = {"step": step, **values}
                rows.writerow([row.get(name, "") for name in self._columns])

    def _check(self, values: Mapping[str, float]) -> None:
        unknown = [name for name in values if name not in self._columns]
        if unknown:
            raise ValueError(
                f"{self._path} has no column {unknown[0]!r}, expected those of its first line: "
                f"{', '.join(self._columns)}; write into another file, or as JSON Lines, which needs no columns"
            )


class Scalars:
    """Writes to what has ``add_scalar``."""

    def __init__(self, writer: ScalarWriter) -> None:
        self._writer = writer

    def write(self, steps: Steps) -> None:
        """Write each value under its name."""
        for step, values in steps:
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
        if path.suffix not in (".jsonl", ".csv"):
            raise ValueError(f"{path} has the suffix {path.suffix!r}, expected .jsonl or .csv; rename it")
        return Csv(path) if path.suffix == ".csv" else JsonLines(path)
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
