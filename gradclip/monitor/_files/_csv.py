"""CSV: the monitor's, Lightning's metrics.csv, exports of W&B and MLflow, any table with a header.

A table has one column a metric ("step,loss,grad_norm"), or one row a value ("run_id,key,value,step,timestamp").
"""

import csv
import re
from collections.abc import Sequence
from typing import Final

from gradclip.monitor._files._collector import Collector
from gradclip.monitor._files._names import role_of
from gradclip.monitor._files._numbers import number

__all__ = ["Csv", "delimiter_of"]

DELIMITERS: Final = ",;\t"
KEY_COLUMNS: Final = ("key", "metric", "tag", "name")
"""Names of the column that holds a metric's name, in tables with one row a value."""


class Csv:
    """Reads one row a line; the first is the header."""

    def __init__(self, into: Collector, delimiter: str) -> None:
        self._into = into
        self._delimiter = delimiter
        self._header: list[str] | None = None
        self._long: tuple[int, int, int | None] | None = None
        """Places of key, value and step in a table with one row a value."""

    def feed(self, line: str, number: int) -> None:
        """Take a line."""
        if not line.strip("\x00\r\n\t "):  # NULs are what a full disk or a crash leaves
            return None
        try:
            cells = next(csv.reader((line,), delimiter=self._delimiter))
        except (csv.Error, StopIteration):
            return self._into.notes.fault(number, "not CSV")
        if self._header is None or _is_header(cells):
            self._begin(cells)
        elif len(cells) != len(self._header):
            self._into.notes.fault(number, f"not {len(self._header):,} columns")
        elif self._long is None:
            self._into.row(dict(zip(self._header, cells, strict=True)), number)
        else:
            key, value, step = self._long
            self._into.value(cells[key], None if step is None else cells[step], cells[value], number)
        return None

    def _begin(self, header: list[str]) -> None:
        self._header = [cell.strip() for cell in header]
        lower = [cell.lower() for cell in self._header]
        key = next((lower.index(name) for name in KEY_COLUMNS if name in lower), None)
        if key is not None and "value" in lower:
            self._long = key, lower.index("value"), lower.index("step") if "step" in lower else None
        else:
            self._long = None
            self._into.meet(self._header)


def delimiter_of(lines: Sequence[str]) -> str | None:
    """Return what separates the columns if the lines are a table with a header; else None."""
    for delimiter in DELIMITERS:
        rows = [next(csv.reader((line,), delimiter=delimiter), []) for line in lines[:2]]
        if len(rows[0]) > 1 and not any(map(_is_number, rows[0])) and _goes_with(rows):
            return delimiter
    return None


def _goes_with(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the second line, if there is one, is a row of numbers under the first."""
    if len(rows) == 1:
        return any(role_of(cell.strip()) for cell in rows[0])
    numbers = any(map(_is_number, rows[1]))
    return (len(rows[0]) == len(rows[1]) and numbers) or any(role_of(cell.strip()) for cell in rows[0])


def _is_header(cells: Sequence[str]) -> bool:
    """Return whether a later line is a header again, as where a second run was appended."""
    return not any(map(_is_number, cells)) and any(role_of(cell.strip()) for cell in cells)  # numbers are told faster


def _is_number(cell: str) -> bool:
    if not re.search(r"\d|nan|inf", cell, re.IGNORECASE):
        return False
    try:
        return number(cell) is not None
    except ValueError:
        return False
