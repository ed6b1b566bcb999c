"""The three rules that the demo compares: no clipping, clipping by global norm, clipping by value."""

import math
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from demo.backend import Backend

Treated: TypeAlias = tuple[dict[str, Any], float, bool]
"""The clipped gradients, their norm before clipping, and whether clipping changed any of them."""


class Rule(Protocol):
    """What to do with the gradients of a step."""

    @property
    def name(self) -> str:
        """The rule in a few words, for table and figure."""
        ...

    def __call__(self, backend: Backend[Any], grads: dict[str, Any]) -> Treated:
        """Apply the rule to gradients."""
        ...


@dataclass(frozen=True)
class NoClipping:
    """Do not clip."""

    name: str = "no clipping"

    def __call__(self, backend: Backend[Any], grads: dict[str, Any]) -> Treated:
        """Compute the norm only."""
        return grads, backend.global_norm(grads), False


@dataclass(frozen=True)
class ByGlobalNorm:
    """Scale all gradients by one factor if their norm exceeds ``max_norm``: shorter, same direction."""

    max_norm: float
    name: str = "by global norm"

    def __call__(self, backend: Backend[Any], grads: dict[str, Any]) -> Treated:
        """Compute the norm and clip in one call."""
        grads, norm = backend.clip_by_global_norm(grads, self.max_norm)
        return grads, norm, norm > self.max_norm


@dataclass(frozen=True)
class ByValue:
    """Move each element into ``[-max_value, max_value]``: the direction changes too."""

    max_value: float
    name: str = "by value"

    def __call__(self, backend: Backend[Any], grads: dict[str, Any]) -> Treated:
        """Compute the norm, then clip. The norm of order inf, the largest element, says if anything changes."""
        norm, largest = backend.global_norm(grads), backend.global_norm(grads, math.inf)
        return backend.clip_by_value(grads, self.max_value), norm, largest > self.max_value
