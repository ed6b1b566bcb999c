"""The frameworks: each is a module ``rows_*``. Those that cannot be imported are skipped with the reason."""

from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import cast

from benchmarks.row import Framework, Row, Skipped

NAMES = ("numpy", "torch", "ranks", "jax", "monitor")
"""In the order in which they are measured."""


def load(name: str) -> Framework | Skipped:
    """Return the rows of a framework, or why there are none."""
    try:
        return cast("Framework", import_module(f"benchmarks.rows_{name}"))
    except ModuleNotFoundError as e:
        if e.name is None or e.name.split(".")[0] in {"benchmarks", "gradclip"}:
            raise
        return Skipped(f"{name}/*", f"{e.name} is not installed")


def all_loaded() -> Iterator[tuple[str, Framework | Skipped]]:
    """Yield each framework; it is imported when it is yielded."""
    for name in NAMES:
        yield name, load(name)


def find(name: str) -> Row:
    """Return the row of this name.

    Raises
    ------
    LookupError
        If there is none, or its framework cannot be imported; the message says which.
    """
    framework = load(name.partition("/")[0])
    if isinstance(framework, Skipped):
        raise LookupError(framework.reason)
    for row in framework.rows():
        if row.name == name:
            return row
    raise LookupError(f"no row is called {name!r}; python -m benchmarks --list prints all names")


def adapter(name: str) -> tuple[ModuleType | None, str | None]:
    """Return the module ``gradclip.backends.<name>``, or None and the reason to skip its rows."""
    path = f"gradclip.backends.{name}"
    try:
        return import_module(path), None
    except ModuleNotFoundError as e:
        if e.name != path:
            raise
        return None, f"{path} is not in this version"
