"""Clause 13: nothing is read back unless it is asked for, and nothing branches on values under tracing or laziness.

Targets that are lazy prove it with every test of the suite: outside of ``target.asking()`` their scheduler refuses to
compute, and under jit there are no values. Here the functions are called whole, with every option that is decided on
the device.
"""

from typing import Any

import numpy as np
import pytest

from conformance.checks import assert_same_bits
from conformance.helpers import IN_PLACE, PURE, make, read
from conformance.targets import Target
from conformance.values import normal

OPTIONS: list[dict[str, Any]] = [
    {"nonfinite": "zero"},
    {"scale": 1024.0},
    {"eps": 1e-6},
    {"ord": 1.0},
    {"ord": 3.0},
    {"ord": float("inf")},
]


@pytest.mark.needs("!host")
@pytest.mark.parametrize("function", PURE)
def test_pure_functions_compute_nothing(target: Target, function: str) -> None:
    """Calling every pure function, clipping or not, computes nothing yet."""
    for limit in (1e-3, 1e4):
        target.run(
            lambda g, m=limit: PURE[function](target.api, g, m), make(target, [(normal((3, 4), "float32"), "float32")])
        )


@pytest.mark.needs("!host")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_compute_nothing(target: Target, options: dict[str, Any]) -> None:
    """Whatever is decided, is decided later, where the values are."""
    grads = make(target, [(np.array([1.0, np.nan, 3.0]), "float32"), (np.array([np.inf]), "float32")])
    target.run(lambda g: target.api.clip_by_global_norm(g, 0.5, **options), grads)


@pytest.mark.needs("!host", "writable")
@pytest.mark.parametrize("function", IN_PLACE)
def test_in_place_computes_nothing(target: Target, function: str) -> None:
    """Nor does clipping in place, where lazy arrays can be assigned to."""
    IN_PLACE[function](target.api, make(target, [(normal((3, 4), "float32"), "float32")]), 1e-3)


@pytest.mark.needs("!host")
def test_norms_compute_nothing(target: Target) -> None:
    """Norms, partials and their merging wait as well."""

    def norms(a: Any, b: Any) -> list[Any]:
        merged = target.api.norm_partial(a).merge(target.api.norm_partial(b))
        return [target.api.global_norm([a, b]), merged.norm(), *target.api.leaf_norms([a, b])]

    target.run(norms, *make(target, [(normal(5, "float32"), "float32"), (normal(6, "float32"), "float32")]))


@pytest.mark.needs("!host")
def test_per_example_computes_nothing(target: Target) -> None:
    """So do sums of clipped examples and their number."""
    target.run(lambda g: target.api.clip_per_example(g, 0.5), make(target, [(normal((4, 3), "float32"), "float32")]))


@pytest.mark.parametrize("function", PURE)
def test_both_branches_in_one_trace(target: Target, function: str) -> None:
    """One compiled function serves gradients that are clipped and gradients that are not."""
    small, large = normal((2, 3), "float32", size=1e-6), normal((2, 3), "float32", size=1e6)

    def clip(grads: Any) -> Any:
        return PURE[function](target.api, grads, 1.0) if function != "adaptive_grad_clip" else small_units(grads)

    def small_units(grads: Any) -> Any:
        return target.api.adaptive_grad_clip(grads, grads, 2.0)

    kept = target.run(clip, [target.make(small, "float32")])
    assert_same_bits(read(target, kept)[0], small)
    clipped = target.run(clip, [target.make(large, "float32")])
    if function != "adaptive_grad_clip":
        assert np.abs(read(target, clipped)[0]).max() <= np.sqrt(large.size) * (1 + 1e-6)
