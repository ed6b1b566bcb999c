"""What most tests need: make leaves, call every clipping function in the same way, read results."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, settings

from gradclip.conformance import trees
from gradclip.conformance.oracles import Values
from gradclip.conformance.targets import Array, Target

Leaf = tuple[Values, str]

examples = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,  # the same examples on every machine
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)


def make(target: Target, leaves: Sequence[Leaf]) -> list[Array]:
    """Return arrays of the given values and dtypes."""
    return [target.make(values, dtype) for values, dtype in leaves]


def read(target: Target, tree: Any) -> list[Values]:
    """Return the values of all arrays in a container."""
    return target.read_all(trees.arrays(tree))


def number(target: Target, x: Array) -> float:
    """Return the value of a 0-d array."""
    assert x.shape == (), f"expected a 0-d array, got shape {x.shape}"
    return float(target.read(x))


def copies(tree: Any) -> Any:
    """Return a container of equal arrays in other memory."""
    return trees.rebuild(tree, lambda x: x * 1 if re.search("float|complex", str(getattr(x, "dtype", ""))) else x)


PURE: dict[str, Callable[[Any, Any, Any], Any]] = {
    "clip_by_global_norm": lambda api, grads, limit: api.clip_by_global_norm(grads, limit)[0],
    "clip_by_norm": lambda api, grads, limit: api.clip_by_norm(grads, limit),
    "clip_by_rms": lambda api, grads, limit: api.clip_by_rms(grads, limit),
    "clip_by_value": lambda api, grads, limit: api.clip_by_value(grads, limit),
    "adaptive_grad_clip": lambda api, grads, limit: api.adaptive_grad_clip(grads, copies(grads), limit),
    "clip_with_norm": lambda api, grads, limit: api.clip_with_norm(grads, limit, api.norm_partial(grads)),
}
"""Every pure clipping function, as a function of (api, grads, limit)."""

IN_PLACE: dict[str, Callable[[Any, Any, Any], Any]] = {
    "clip_by_global_norm_": lambda api, grads, limit: api.clip_by_global_norm_(grads, limit),
    "clip_by_norm_": lambda api, grads, limit: api.clip_by_norm_(grads, limit),
    "clip_by_rms_": lambda api, grads, limit: api.clip_by_rms_(grads, limit),
    "clip_by_value_": lambda api, grads, limit: api.clip_by_value_(grads, limit),
    "adaptive_grad_clip_": lambda api, grads, limit: api.adaptive_grad_clip_(grads, copies(grads), limit),
    "clip_with_norm_": lambda api, grads, limit: api.clip_with_norm_(grads, limit, api.norm_partial(grads)),
}
"""Every clipping function in place, in the same form."""

NORM_CLIPS = ("clip_by_global_norm", "clip_by_norm", "clip_by_rms", "adaptive_grad_clip", "clip_with_norm")
"""The pure functions that multiply, so that they take complex gradients."""

CLIPS, LEAVES = 1e-3, 1e4
"""A limit that clips any leaf of `normal` values, and one that clips none."""


def clip(target: Target, function: str, grads: Any, limit: Any) -> Any:
    """Return the result of a pure function of `PURE`."""
    return target.run(lambda g: PURE[function](target.api, g, limit), grads)


def clip_global(target: Target, grads: Any, max_norm: Any, **options: Any) -> tuple[Any, float]:
    """Return gradients clipped by their global norm, and the norm as a number."""
    clipped, norm = target.run(lambda g: target.api.clip_by_global_norm(g, max_norm, **options), grads)
    return clipped, number(target, norm)
