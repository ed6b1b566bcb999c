"""Checks of the options, before anything runs. Messages say what was passed, what was expected, and what to do."""

import math
import os
from collections.abc import Callable
from pathlib import Path

FIGURE_SUFFIXES = (".pdf", ".png", ".svg")


class RefusedError(Exception):
    """An input that cannot be used. The user sees the message without a stack trace."""


def whole_number(option: str, least: int, example: int) -> Callable[[object], int]:
    """Return the parser of an option that takes a whole number from ``least`` on."""

    def parse(given: object) -> int:
        try:
            value = int(str(given))
        except ValueError:
            value = least - 1
        if value < least:
            raise RefusedError(
                f"{option} is {given}; expected a whole number, at least {least}. Try {option} {example}."
            )
        return value

    return parse


def positive(option: str, example: float) -> Callable[[object], float]:
    """Return the parser of an option that takes a finite number above 0."""

    def parse(given: object) -> float:
        try:
            value = float(str(given))
        except ValueError:
            value = math.nan
        if not (value > 0 and math.isfinite(value)):
            raise RefusedError(
                f"{option} is {given}; expected a finite number greater than 0. Try {option} {example:g}."
            )
        return value

    return parse


def check_figure(path: Path) -> None:
    """Raise if the figure cannot be saved, before the training begins."""
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        came = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        expected = ", ".join(FIGURE_SUFFIXES)
        raise RefusedError(f"--out {path} has {came}; expected one of {expected}. Try --out {path.stem or 'demo'}.png.")
    if not path.parent.is_dir():
        raise RefusedError(f"--out {path}: there is no folder {path.parent}. Create it, or name one that exists.")
    if path.is_dir():
        raise RefusedError(f"--out {path} is a folder; expected a file. Try --out {path / 'demo.png'}.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise RefusedError(f"--out {path} cannot be written: permission denied. Name another file or folder.")
