"""Notes that are taken while tests are collected. Worker processes of pytest-xdist pass theirs to the main process."""

from typing import Any, TypeAlias

import pytest

Notes: TypeAlias = set[tuple[str, ...]]
TAKEN = pytest.StashKey[dict[str, Notes]]()
OUTPUT = "gradclip.conformance"


def notes(config: pytest.Config, topic: str) -> Notes:
    """Return the set of notes on a topic, to which notes may be added."""
    return config.stash.setdefault(TAKEN, {}).setdefault(topic, set())


def is_worker(config: pytest.Config) -> bool:
    """Whether this is a worker process of pytest-xdist."""
    return hasattr(config, "workerinput")


def hand_over(config: pytest.Config) -> None:
    """Pass all notes to the main process."""
    taken = {topic: sorted(found) for topic, found in config.stash.setdefault(TAKEN, {}).items()}
    config.workeroutput[OUTPUT] = taken  # type: ignore[attr-defined]


def take_over(config: pytest.Config, worker: Any) -> None:
    """Add the notes of a worker that ended. A worker that crashed has none."""
    for topic, found in getattr(worker, "workeroutput", {}).get(OUTPUT, {}).items():
        notes(config, topic).update(map(tuple, found))
