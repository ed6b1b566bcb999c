"""Containers of arrays, walked without the library under test."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

STATIC = (str, bytes, bool, int, float, complex, type(None))


def rebuild(tree: Any, replace: Callable[[Any], Any]) -> Any:
    """Return the container with every array replaced; None and Python's own values stay.

    Dicts are walked in sorted order of their keys, because some libraries return them in that order.
    """
    if isinstance(tree, STATIC):
        return tree
    if isinstance(tree, dict):
        walked = {k: rebuild(tree[k], replace) for k in sorted(tree)}
        return type(tree)((k, walked[k]) for k in tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(rebuild(v, replace) for v in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(rebuild(v, replace) for v in tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type) and not hasattr(tree, "shape"):
        new = copy.copy(tree)
        for field in dataclasses.fields(tree):
            object.__setattr__(new, field.name, rebuild(getattr(tree, field.name), replace))
        return new
    return replace(tree)


def arrays(tree: Any) -> list[Any]:
    """Return the arrays of a container, in the order in which `rebuild` walks it."""
    found: list[Any] = []
    rebuild(tree, found.append)
    return found


def refill(tree: Any, values: Iterator[Any]) -> Any:
    """Return the container with its arrays replaced by the next values."""
    return rebuild(tree, lambda _: next(values))
