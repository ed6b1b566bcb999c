"""Fewer cases for targets that compile or delay everything: a few of each test, as different as can be."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import pytest

from gradclip.conformance.targets import Target


def thinned(items: Sequence[tuple[pytest.Item, Target]], cases: int | None = None) -> set[pytest.Item]:
    """Return the items that run: ``cases``, or else ``target.cases``, of each test function; None is for all."""
    kept: set[pytest.Item] = set()
    groups: dict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
    limits = {target.name: cases or target.cases for _, target in items}
    for item, target in items:
        groups[target.name, _function(item)].append(item)
    for (name, function), group in groups.items():
        kept.update(_spread(group, limits[name] or len(group), crc32(f"{name} {function}".encode())))
    return kept


def _spread(items: Sequence[pytest.Item], limit: int, seed: int) -> list[pytest.Item]:
    """Return some items, each with as many values of parameters as possible that those before it have not."""
    if limit >= len(items):
        return list(items)
    start = seed % len(items)  # so that different tests, and targets, take different cases
    left = [*items[start:], *items[:start]]
    chosen: list[pytest.Item] = []
    seen: set[tuple[str, int]] = set()
    while left and len(chosen) < limit:
        best = max(left, key=lambda item: len(_values(item) - seen))
        chosen.append(best)
        left.remove(best)
        seen |= _values(best)
    return chosen


def _function(item: pytest.Item) -> str:
    """Return the name of a test's function: the same wherever the suite is, so that the same cases run."""
    return f"conformance/{item.path.name}::{item.name.partition('[')[0]}"


def _values(item: Any) -> set[tuple[str, int]]:
    return {(name, id(value)) for name, value in item.callspec.params.items()}
