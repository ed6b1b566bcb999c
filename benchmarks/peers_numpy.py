"""Clipping as it is usually written with NumPy, which has no function for it."""

import math

import numpy as np

from benchmarks.sets import NDArray


def linalg_norm(grads: list[NDArray]) -> float:
    """Return the norm as it is usually written."""
    return math.sqrt(sum(float(np.linalg.norm(g)) ** 2 for g in grads))


def linalg_clip_(grads: list[NDArray], max_norm: float, *, branch: bool = False) -> float:
    """Clip in place as it is usually written, with torch's formula."""
    norm = linalg_norm(grads)
    factor = min(1.0, max_norm / (norm + 1e-6))
    if not branch or factor < 1:
        for g in grads:
            np.multiply(g, factor, out=g, casting="same_kind")
    return norm


def linalg_clip(grads: list[NDArray], max_norm: float, *, branch: bool = False) -> tuple[list[NDArray], float]:
    """Clip into new arrays as it is usually written."""
    norm = linalg_norm(grads)
    factor = min(1.0, max_norm / (norm + 1e-6))
    return (grads if branch and factor == 1 else [g * factor for g in grads]), norm
