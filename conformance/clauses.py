"""The clauses of the contract, read from the docstrings of the test files."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Clause(NamedTuple):
    """A row of the report: ``"5"`` and ``"clipped leaves have the norm ..."``; files that are no clause have a name."""

    name: str
    title: str


@cache
def clauses() -> dict[str, Clause]:
    """Return the clauses in order, by the part of the file name that all files of a clause share."""
    found: dict[str, Clause] = {}
    for file in sorted(HERE.glob("test_*.py")):
        name, _, title = _first_line(file).partition(": ")
        if not name.endswith(", continued"):
            found[_key(file.name)] = Clause(name.removeprefix("Clause "), title.rstrip(".").replace("``", "`"))
    return found


def key_of(file: str) -> str | None:
    """Return the key of a file's clause, or None if it is no file of the suite."""
    return _key(file) if (HERE / file).is_file() and file.startswith("test_") else None


def _key(file: str) -> str:
    """Return ``"05"`` for ``test_05_exactness.py``, ``"golden_vectors"`` for ``test_golden_vectors.py``."""
    return re.sub(r"^(\d+)_.*", r"\1", file.removeprefix("test_").removesuffix(".py"))


def _first_line(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
