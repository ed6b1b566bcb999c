"""Selects a few cases of each test, as different as possible, for targets on which a case takes long."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import pytest

from gradclip.conformance.targets import Target


def thinned(items: Sequence[tuple[pytest.Item, Target]], cases: int | None = None) -> set[pytest.Item]:
    """Return the items to run: of each test function ``cases`` or, if None, ``target.cases``; all if both are None."""
    kept: set[pytest.Item] = set()
    groups: dict[tuple[str, str], list[pytest.Item]] = defaultdict(list)
    limits = {target.name: cases or target.cases for _, target in items}
    for item, target in items:
        groups[target.name, _function(item)].append(item)
    for (name, function), group in groups.items():
        kept.update(_spread(group, limits[name] or len(group), crc32(f"{name} {function}".encode())))
    return kept


def _spread(items: Sequence[pytest.Item], limit: int, seed: int) -> list[pytest.Item]:
    """Return some items. Each has as many values of parameters as possible that earlier items do not have."""
    if limit >= len(items):
        return list(items)
    start = seed % len(items)  # so that tests and targets differ in their cases
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
    """Return the name of a test's function, which does not depend on the folder of the suite."""
    return f"conformance/{item.path.name}::{item.name.partition('[')[0]}"


def _values(item: Any) -> set[tuple[str, int]]:
    return {(name, id(value)) for name, value in item.callspec.params.items()}
