"""Notes taken while tests are collected: processes of pytest-xdist hand them to the one that started them."""

from typing import Any, TypeAlias

import pytest

Notes: TypeAlias = set[tuple[str, ...]]
TAKEN = pytest.StashKey[dict[str, Notes]]()
OUTPUT = "gradclip.conformance"


def notes(config: pytest.Config, topic: str) -> Notes:
    """Return the notes on a topic, to read and to add to."""
    return config.stash.setdefault(TAKEN, {}).setdefault(topic, set())


def is_worker(config: pytest.Config) -> bool:
    """Whether this is one of the processes of pytest-xdist."""
    return hasattr(config, "workerinput")


def hand_over(config: pytest.Config) -> None:
    """Hand all notes to the process that started this one."""
    taken = {topic: sorted(found) for topic, found in config.stash.setdefault(TAKEN, {}).items()}
    config.workeroutput[OUTPUT] = taken  # type: ignore[attr-defined]


def take_over(config: pytest.Config, worker: Any) -> None:
    """Add the notes of a process that ended; one that crashed has none."""
    for topic, found in getattr(worker, "workeroutput", {}).get(OUTPUT, {}).items():
        notes(config, topic).update(map(tuple, found))
