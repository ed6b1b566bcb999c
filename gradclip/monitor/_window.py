"""`Window`: the last rows of a monitor, as columns of numbers in bounded memory."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradclip.monitor._history import Flags, Floats, History, Steps
from gradclip.monitor._row import Known

FIRST_ROWS = 256
"""The rows for which memory is allocated first. It doubles as rows come."""


class Window:
    """The last rows: at least ``size`` of them, if there were as many, and at most twice as many.

    Parameters
    ----------
    size : int
        The number of rows. Memory grows to 16 bytes for each row and column.
    on_leave : callable
        Called with the history of all rows before the first ``size`` of them are dropped, and with the last step of
        these.
    """

    def __init__(self, size: int, on_leave: Callable[[History, int], object]) -> None:
        self._size, self._on_leave = size, on_leave
        self._count = 0
        self._steps: Steps = np.empty(0, np.int64)
        self._numbers: dict[str, Floats] = {}
        self._parameters: dict[str, Floats] = {}

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._count

    def extend(self, rows: Sequence[Known]) -> None:
        """Append rows."""
        for start in range(0, len(rows), self._size):
            self._append(rows[start : start + self._size])

    def history(self) -> History:
        """Return the rows by ascending steps; of a step that was recorded twice, as in a resumed run, the later row."""
        order = _ascending(self._steps[: self._count])
        numbers = {name: column[order] for name, column in self._numbers.items()}
        return History(
            self._steps[order],
            numbers.get("norm", np.empty(0)),
            max_norm=numbers.get("max_norm"),
            coefficient=numbers.get("coefficient"),
            loss=numbers.get("loss"),
            clipped=_flags(numbers.get("clipped")),
            skipped=_flags(numbers.get("skipped")),
            parameters={name: column[order] for name, column in self._parameters.items()},
            update_norm=numbers.get("update_norm"),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the rows as lists of numbers."""
        return {
            "steps": self._steps[: self._count].tolist(),
            "numbers": {name: column[: self._count].tolist() for name, column in self._numbers.items()},
            "parameters": {name: column[: self._count].tolist() for name, column in self._parameters.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self._steps = np.array(state_dict["steps"], np.int64)
        self._count = self._steps.size
        self._numbers = {name: np.array(column, np.float64) for name, column in state_dict["numbers"].items()}
        self._parameters = {name: np.array(column, np.float64) for name, column in state_dict["parameters"].items()}

    def _append(self, rows: Sequence[Known]) -> None:
        if self._count + len(rows) > 2 * self._size:
            self._on_leave(self.history(), int(self._steps[: self._size].max()))
            self._drop(self._size)
        start, self._count = self._count, self._count + len(rows)
        self._reserve(self._count)
        self._steps[start : self._count] = [row.step for row in rows]
        for name in dict.fromkeys(name for row in rows for name in row.numbers):
            column = self._column(self._numbers, name)
            column[start : self._count] = [row.numbers.get(name, math.nan) for row in rows]
        for names, first, last in _alike(rows):
            norms = np.stack([row.norms for row in rows[first:last]])
            for i, name in enumerate(names):
                self._column(self._parameters, name)[start + first : start + last] = norms[:, i]

    def _column(self, columns: dict[str, Floats], name: str) -> Floats:
        if name not in columns:
            columns[name] = np.full(self._steps.size, math.nan)
        return columns[name]

    def _reserve(self, count: int) -> None:
        """Allocate memory for rows, a power of two; what is not written yet is NaN."""
        if count <= self._steps.size:
            return
        size = min(2 * self._size, max(FIRST_ROWS, 1 << (count - 1).bit_length()))
        self._steps = np.resize(self._steps, size)
        for columns in (self._numbers, self._parameters):
            for name, column in columns.items():
                columns[name] = np.concatenate([column, np.full(size - column.size, math.nan)])

    def _drop(self, count: int) -> None:
        """Drop the first rows."""
        kept = self._count - count
        self._steps[:kept] = self._steps[count : self._count].copy()
        for columns in (self._numbers, self._parameters):
            for column in columns.values():
                column[:kept] = column[count : self._count].copy()
                column[kept:] = math.nan
        self._count = kept


def _ascending(steps: Steps) -> NDArray[np.intp]:
    """Return the positions of steps in ascending order, of equal steps the last."""
    if (np.diff(steps) > 0).all():
        return np.arange(steps.size)
    _, from_the_end = np.unique(steps[::-1], return_index=True)
    return steps.size - 1 - from_the_end


def _flags(column: Floats | None) -> Flags | None:
    return None if column is None else np.nan_to_num(column) != 0


def _alike(rows: Sequence[Known]) -> list[tuple[tuple[str, ...], int, int]]:
    """Return runs of rows with the same parameters: their names, the first row, and the one after the last."""
    runs: list[tuple[tuple[str, ...], int, int]] = []
    for i, row in enumerate(rows):
        if runs and (runs[-1][0] is row.names or runs[-1][0] == row.names):
            runs[-1] = (runs[-1][0], runs[-1][1], i + 1)
        else:
            runs.append((row.names, i, i + 1))
    return runs
