"""The clauses of the contract, as the docstrings of their tests' files name them."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Clause(NamedTuple):
    """A row of the report: ``"5"`` and ``"clipped leaves have the norm ..."``; what is no clause has a name instead."""

    name: str
    title: str


@cache
def clauses() -> dict[str, Clause]:
    """Return the clauses by the key that their files have in common, in order."""
    found: dict[str, Clause] = {}
    for file in sorted(HERE.glob("test_*.py")):
        name, _, title = _first_line(file).partition(": ")
        if not name.endswith(", continued"):
            found[_key(file.name)] = Clause(name.removeprefix("Clause "), title.rstrip(".").replace("``", "`"))
    return found


def key_of(file: str) -> str | None:
    """Return the key of the clause that a file belongs to, or None if it is no file of the suite."""
    return _key(file) if (HERE / file).is_file() and file.startswith("test_") else None


def _key(file: str) -> str:
    """Return ``"05"`` for ``test_05_exactness.py``, ``"golden_vectors"`` for ``test_golden_vectors.py``."""
    return re.sub(r"^(\d+)_.*", r"\1", file.removeprefix("test_").removesuffix(".py"))


def _first_line(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
