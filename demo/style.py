"""Colours and texts that terminal and figure share, so that a run has the same colour in both."""

import math

COLOURS = ("#D55E00", "#0072B2", "#009E73")
"""The runs' colours in order, from the palette of Okabe and Ito, which colour-blind readers can distinguish."""


def number(value: float) -> str:
    """Return a loss or norm as text in a form that suits its size: 0.473, 12.3, 8.1e+03, inf."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:.1e}"
    return f"{value:#.3g}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: "1 step", "1,500 steps"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def death(step: int, loss: float) -> str:
    """Return how a run ended before its last step; ``step`` counts from 1."""
    return f"died at step {step:,} (loss {loss})"
