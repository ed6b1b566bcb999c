"""Norms recorded from a real training run, with batches that were spoiled, and with norms that are not ordinary."""

import math
from functools import cache

import numpy as np

STEPS = 160
SPOILED = {37: 40.0, 61: 8.0, 62: 8.0, 110: 3000.0}
"""Steps whose inputs were multiplied by a number."""


@cache
def recorded() -> np.ndarray:
    """The norms of three gradients at each step, float32 numbers in float64: shape ``(STEPS, 3)``.

    A regression with one hidden layer in NumPy; its weights move by clipped gradients, so that it survives the spikes.
    """
    rng = np.random.default_rng(7)
    first, second, bias = rng.standard_normal((6, 8)) / 3, rng.standard_normal((8, 1)) / 3, np.zeros(8)
    norms = []
    for step in range(STEPS):
        x = rng.standard_normal((16, 6)) * SPOILED.get(step, 1.0)
        hidden = np.tanh(x @ first + bias)
        error = (hidden @ second - x[:, :1] * x[:, 1:2]) / 16
        back = (error @ second.T) * (1 - hidden * hidden)
        grads = [x.T @ back, hidden.T @ error, back.sum(axis=0)]
        norms.append([float(np.linalg.norm(g)) for g in grads])
        factor = 0.2 * min(1.0, 1.0 / math.hypot(*norms[-1]))
        for weight, grad in zip((first, second, bias), grads, strict=True):
            weight -= factor * grad
    return np.asarray(norms, np.float32).astype(np.float64)


@cache
def norms() -> list[float]:
    """The global norm at each step."""
    return [float(np.float32(math.hypot(*row))) for row in recorded().tolist()]


def spoiled() -> list[float]:
    """The global norms with NaN, inf and 0 between them, some in a row, and at the beginning."""
    return [math.nan, 0.0, math.inf, *_with_bad(norms(), [math.nan, math.inf, 0.0])]


def spoiled_leaves() -> list[list[float]]:
    """The norms of the leaves with NaN, inf and 0 between them, in one leaf or in all."""
    bad = [[math.nan] * 3, [math.inf, 1.0, 0.5], [0.0] * 3, [0.7, 0.0, 0.1], [0.6, 0.2, math.nan]]
    return [[0.5, 0.0, 0.1], [math.nan] * 3, *_with_bad(recorded().tolist(), bad)]


def _with_bad(rows: list, bad: list) -> list:
    """Return rows with one of the bad ones before every ninth, and all of them after the fiftieth."""
    out = []
    for i, row in enumerate(rows):
        out += [bad[i // 9 % len(bad)]] if i % 9 == 8 else []
        out += bad if i == 50 else []
        out.append(row)
    return out
