"""Collector: from logged rows and values to a `History`."""

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from gradclip.monitor._files._error import ReadError
from gradclip.monitor._files._names import NORM_NAMES, PARAMETER, role_of
from gradclip.monitor._files._notes import Notes
from gradclip.monitor._files._numbers import number, whole
from gradclip.monitor._files._points import Floats, Points, in_sample
from gradclip.monitor._history import History

__all__ = ["Collector"]

VALUES_KEPT: Final = 2**24
"""Above this many values (256 MB), half of the steps are dropped, so that memory stays bounded."""

COLUMNS_LISTED: Final = 40


class Collector:
    """Takes a log's rows or single values one by one and makes a `History` of them.

    Parameters
    ----------
    notes
        Where faults are counted.
    norm, loss
        The columns to take; None: recognised by their names.
    parameters
        Whether norms of single parameters are kept.
    """

    def __init__(self, notes: Notes, *, norm: str | None, loss: str | None, parameters: bool) -> None:
        self.notes = notes
        self._wanted = {"norm": norm, "loss": loss}
        self._keep_parameters = parameters
        self._points: dict[str, Points] = {}
        self._chosen: dict[str, str] = {}
        self._columns: dict[str, str | None] = {}
        self._rivals: list[str] = []
        self._counted = 0
        self._last: int | None = None
        self._went_back: tuple[int, int, int] | None = None
        self._kept = 0
        self._bits = 0

    def __len__(self) -> int:
        """Return the number of norms."""
        return len(self._points.get("norm", ()))

    def row(self, cells: Mapping[str, object], line: int) -> None:
        """Take a row: what was logged at one step. Its line number is for messages."""
        if not self._columns.keys() >= cells.keys():
            self.meet(cells)
        values = {role: cells[column] for role, column in self._chosen.items() if column in cells}
        step = self._step(values.pop("step", None), values.get("norm"), line)
        if step is not None:
            for role, cell in values.items():
                self._take(role, step, cell, line)

    def value(self, column: str, step: object, cell: object, line: int) -> None:
        """Take a single value, from a log that has one a line or an event."""
        if column not in self._columns:
            self.meet([column])
        role = self._columns[column]
        if role is not None and role != "step" and self._chosen.get(role) == column:
            exact = self._step(step, cell, line)
            if exact is not None:
                self._take(role, exact, cell, line)

    def meet(self, columns: Iterable[str]) -> None:
        """Decide what new columns hold. Of several for one purpose, the one with the most usual name is taken."""
        new = [column for column in columns if column not in self._columns]
        known = [(column, found) for column in new if (found := self._role(column)) is not None]
        self._columns |= dict.fromkeys(new)
        for column, (role, _) in sorted(known, key=lambda one: one[1][1]):  # else in the order of the log
            if role.startswith(PARAMETER) and not self._keep_parameters:
                continue
            self._columns[column] = role
            taken = self._chosen.setdefault(role, column)
            if taken != column and role == "norm":
                self._rivals.append(column)

    def history(self, where: object) -> History:
        """Return what was taken.

        Raises
        ------
        ReadError
            If there is no norm. The message lists the columns that there are.
        """
        if not len(self):
            raise ReadError(self._without_norms(where))
        self._remark()
        steps, norms = self._points["norm"].latest()
        found = {role: points.at(steps) for role, points in self._points.items() if role not in {"norm", "step"}}
        return History(
            step=steps,
            norm=norms,
            max_norm=found.get("max_norm"),
            coefficient=found.get("coefficient"),
            loss=found.get("loss"),
            clipped=_true(found.get("clipped")),
            skipped=_true(found.get("skipped")),
            parameters={role.removeprefix(PARAMETER): v for role, v in found.items() if role.startswith(PARAMETER)},
        )

    def _role(self, column: str) -> tuple[str, int] | None:
        for role, wanted in self._wanted.items():
            if column == wanted:
                return role, 0
        found = role_of(column)
        return None if found and self._wanted.get(found[0]) is not None else found

    def _step(self, cell: object, norm: object, line: int) -> int | None:
        """Return the step of a row, or None if it has none: rows are counted only in logs without steps."""
        if cell in (None, ""):
            if norm in (None, ""):
                return None
            if "step" in self._chosen:
                self.notes.fault(line, "no step")
                return None
            self._counted += 1
            return self._counted - 1
        try:
            return whole(cell)
        except ValueError as error:
            self.notes.fault(line, f"the step is {error}")
            return None

    def _take(self, role: str, step: int, cell: object, line: int) -> None:
        try:
            value = cell if type(cell) is float else number(cell)
        except ValueError as error:
            return self.notes.fault(line, f"{self._chosen[role]!r} is {error}")
        if value is None:
            return None
        if role == "norm":
            if value < 0:
                return self.notes.fault(line, f"{self._chosen[role]!r} is negative")
            if self._last is not None and step <= self._last and self._went_back is None:
                self._went_back = line, self._last, step
            self._last = step
        return self._keep(role, step, value)

    def _keep(self, role: str, step: int, value: float) -> None:
        if in_sample(step, self._bits):
            points = self._points.get(role)
            if points is None:
                points = self._points[role] = Points()
            points.append(step, value)
            self._kept += 1
        while self._kept > VALUES_KEPT:
            self._bits += 1
            for points in self._points.values():
                points.thin(self._bits)
            self._kept = sum(map(len, self._points.values()))

    def _remark(self) -> None:
        norms, distinct = self._points["norm"], self._points["norm"].latest()[0].size
        if self._rivals:
            others = ", ".join(map(repr, self._rivals[:3])) + (" …" if len(self._rivals) > 3 else "")
            self.notes.remark(f"{self._chosen['norm']!r} is read; other norms: {others}; choose with --norm")
        if self._counted:
            self.notes.remark("the log has no steps: norms are counted from 0")
        if self._went_back is not None:
            line, before, after = self._went_back
            twice = len(norms) - distinct
            what = f"{_steps(twice)} again, and the later values are used" if twice else "the steps are sorted"
            self.notes.remark(f"{self.notes.unit} {line:,}: step {after:,} comes after step {before:,}; {what}")
        if self._bits:
            self.notes.remark(f"the log is very long: a sample of one in {2**self._bits:,} steps is used")

    def _without_norms(self, where: object) -> str:
        columns = sorted(self._columns)
        listed = ", ".join(columns[:COLUMNS_LISTED]) or "none"
        more = f" and {len(columns) - COLUMNS_LISTED:,} more" if len(columns) > COLUMNS_LISTED else ""
        wanted = self._wanted["norm"]
        if wanted is None:
            wanted = self._chosen.get("norm")
        if wanted is None:
            sought = f"no column of gradient norms, such as {', '.join(NORM_NAMES[:3])}"
        else:
            sought = f"column {wanted!r} " + ("holds no norm" if wanted in self._columns else "is not there")
        return f"{where}: {sought}. The columns are: {listed}{more}. Choose one with --norm COLUMN (norm= in Python)"


def _steps(count: int) -> str:
    return "1 step occurs" if count == 1 else f"{count:,} steps occur"


def _true(values: Floats | None) -> np.ndarray | None:
    return None if values is None else np.nan_to_num(values) != 0
