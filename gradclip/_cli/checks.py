"""What the user asked for, checked before anything runs. A message says what came, what was expected, what to do."""

import math
import os
from pathlib import Path

FIGURE_SUFFIXES = (".pdf", ".png", ".svg")


class RefusedError(Exception):
    """An input that cannot be used; the message is for the user, who sees it without a stack trace."""


def check_count(option: str, value: int, least: int, remedy: str) -> None:
    """Refuse a whole number below ``least``."""
    if value < least:
        raise RefusedError(f"{option} is {value}; expected a whole number, at least {least}. Try {remedy}.")


def check_positive(option: str, value: float, remedy: str) -> None:
    """Refuse anything but a finite number above 0; NaN is refused too."""
    if not (value > 0 and math.isfinite(value)):
        raise RefusedError(f"{option} is {value}; expected a finite number greater than 0. Try {remedy}.")


def check_figure(path: Path) -> None:
    """Refuse a figure that could not be saved, now rather than after the training."""
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
