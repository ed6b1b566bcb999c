"""Clause 14: clipping twice is clipping once, and clip(c·g, c·m) = c·clip(g, m)."""

import numpy as np
import pytest

from conformance.checks import assert_same_bits
from conformance.helpers import CLIPS, PURE, clip, make, read
from conformance.oracles import Values, components, format_of
from conformance.targets import Target
from conformance.values import model, normal, spread

FUNCTIONS = [name for name in PURE if name not in ("adaptive_grad_clip", "clip_with_norm")]
"""Those of gradients and a threshold alone; the others have a case of their own."""


def assert_near(got: Values, right: Values, dtype: str, eps: float = 3.0) -> None:
    """Assert that values are equal to some eps of their dtype."""
    bound = eps * format_of(dtype).eps
    np.testing.assert_allclose(components(got), components(right), rtol=bound, atol=format_of(dtype).tiny)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_twice_is_once(target: Target, dtype: str, function: str) -> None:
    """What is clipped already is left alone, to rounding."""
    if function == "clip_by_value" and dtype.startswith("complex"):
        return
    once = clip(target, function, make(target, model(dtype)), 0.125)
    twice = clip(target, function, once, 0.125)
    for a, b in zip(read(target, twice), read(target, once), strict=True):
        assert_near(a, b, dtype)


def test_adaptive_twice(target: Target, real_dtype: str) -> None:
    """Units that have the norm that their parameters allow are left alone."""
    pair = make(target, [(normal((4, 3), real_dtype, 1), real_dtype), (normal((4, 3), real_dtype, 2), real_dtype)])

    def both(grad: object, weight: object) -> list[object]:
        once = target.api.adaptive_grad_clip(grad, weight, 0.125)
        return [once, target.api.adaptive_grad_clip(once, weight, 0.125)]

    once, twice = read(target, target.run(both, *pair))
    assert_near(twice, once, real_dtype)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("factor", [2.0**40, 2.0**-40, 3.0])
def test_scale_covariance(target: Target, function: str, factor: float) -> None:
    """Gradients and threshold a number of times as large give results as many times as large."""
    parts = [normal(shape, "float32", seed) for seed, shape in enumerate(((7,), (3, 2)))]
    one = read(target, clip(target, function, make(target, [(p, "float32") for p in parts]), 0.125))
    grads = make(target, [(np.float32(p * factor).astype(float), "float32") for p in parts])
    other = read(target, clip(target, function, grads, 0.125 * factor))
    for a, b in zip(other, one, strict=True):
        assert_near(a / factor, b, "float32", 8.0)


def test_covariance_over_the_whole_range(target: Target) -> None:
    """By powers of two the norm and the result scale exactly, as far as float32 goes."""
    values = spread(33, "float32") + 1.0
    values = np.float32(values).astype(float)
    reference: Values | None = None
    for exponent in (-110, -60, 0, 60, 120):
        unit = 2.0**exponent
        (got,) = read(
            target, clip(target, "clip_by_global_norm", [target.make(values * unit, "float32")], CLIPS * unit)
        )
        reference = got / unit if reference is None else reference
        assert_near(got / unit, reference, "float32", 4.0)


def test_below_the_threshold_twice_is_nothing(target: Target) -> None:
    """Where nothing is clipped, clipping again changes no bit."""
    values = normal(100, "float32")
    once = clip(target, "clip_by_global_norm", [target.make(values, "float32")], 1e3)
    (twice,) = read(target, clip(target, "clip_by_global_norm", once, 1e3))
    assert_same_bits(twice, values)
