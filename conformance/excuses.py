"""Xfail files: tests that a target cannot pass, one per line, each with the reason.

A line is ``pattern  # reason``. The pattern is a test's short name, ``test_03_range.py::test_norm[float32-least]``,
without the target; ``*`` stands for anything. Empty lines and lines that begin with ``#`` are skipped.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "xfails"


@dataclass
class Excuse:
    """One line of an xfail file, and whether it matched a test."""

    file: Path
    line: int
    pattern: str
    reason: str
    used: bool = field(default=False, compare=False)

    def matches(self, name: str) -> bool:
        """Whether the pattern matches a test's short name."""
        return re.fullmatch(re.escape(self.pattern).replace(r"\*", ".*"), name) is not None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.pattern}"


def read(file: Path) -> list[Excuse]:
    """Return the lines of an xfail file.

    Raises
    ------
    pytest.UsageError
        If a line has no reason.
    """
    excuses = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        pattern, _, reason = (part.strip() for part in line.partition(" # "))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not pattern or not reason:
            raise pytest.UsageError(f"{file}:{number}: {line!r} has no reason; write `test pattern  # reason`")
        excuses.append(Excuse(file, number, pattern, reason))
    return excuses


def of_target(target: str) -> list[Excuse]:
    """Return the excuses of a target: for ``jax.numpy[jit]``, those of ``jax.numpy.txt`` and ``jax.numpy-jit.txt``."""
    base, _, what = target.partition("[")
    names = [base, f"{base}-{what.rstrip(']')}"] if what else [base]
    files = [FOLDER / (re.sub(r"[^\w.,-]", "-", name) + ".txt") for name in names]
    return [excuse for file in files if file.exists() for excuse in read(file)]


def mark(item: pytest.Item, name: str, excuses: Iterable[Excuse]) -> None:
    """Mark a test as xfail if an excuse matches its short name. If it passes, the run fails."""
    for excuse in excuses:
        if excuse.matches(name):
            excuse.used = True
            item.add_marker(pytest.mark.xfail(reason=excuse.reason, strict=True))


def unused(excuses: Iterable[Excuse]) -> list[str]:
    """Return the excuses that matched no test on any of their targets."""
    used: dict[str, bool] = {}
    for excuse in excuses:
        used[str(excuse)] = used.get(str(excuse), False) or excuse.used
    return [line for line, was_used in used.items() if not was_used]


def short_name(file: str, test: str, target: str) -> str:
    """Return the name of a test of a file without its folder and without its target."""
    function, _, given = test.partition("[")
    rest = given.removesuffix("]").removeprefix(target).removeprefix("-")
    return f"{Path(file).name}::{function}" + (f"[{rest}]" if rest else "")
