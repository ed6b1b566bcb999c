"""The recipes of docs/parallelism.md, as they stand there, and gradients to try them on."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from tests import exact

DOCS = Path(__file__).parents[2] / "docs" / "parallelism.md"

SCALES = (1.0, 1e25, 1e-30)
"""Magnitudes of gradients; the squares of the second overflow in float32, those of the third underflow."""


def recipe(name: str) -> Any:
    """Return a function or class of the docs; the whole block of code that defines it is run."""
    blocks = [b for b in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL) if defines(b, name)]
    assert len(blocks) == 1, f"{len(blocks)} blocks of docs/parallelism.md define {name}"
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(blocks[0], f"docs/parallelism.md: {name}", "exec"), names)
    return names[name]


def defines(block: str, name: str) -> bool:
    return re.search(rf"^(def|class) {name}\b", block, re.MULTILINE) is not None


def part(rank: int, scale: float = 1.0) -> list[np.ndarray]:
    """Return what a rank holds: another number of gradients on each, of another magnitude."""
    random = np.random.default_rng(rank)
    shapes = [(5 + rank, 3), (7,), (2, 2)][: 1 + rank % 3]
    return [(random.standard_normal(shape) * scale * 10.0**rank).astype(np.float32) for shape in shapes]


def whole_norm(world: int, scale: float = 1.0) -> float:
    return float(exact.norm([float(x) for rank in range(world) for g in part(rank, scale) for x in g.flat], 2.0))


def assert_clipped(norm: object, after: list[np.ndarray], rank: int, world: int, scale: float) -> None:
    """Assert that a rank got the norm of all, and that its gradients were clipped to ``max_norm=scale`` by it."""
    want = whole_norm(world, scale)
    assert math.isclose(float(norm), want, rel_tol=1e-6), (float(norm), want)
    for x, before in zip(after, part(rank, scale), strict=True):
        np.testing.assert_allclose(np.asarray(x, np.float64), before * (scale / want), rtol=1e-6, atol=0)
