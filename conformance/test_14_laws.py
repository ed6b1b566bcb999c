"""Clause 14: clipping twice gives what clipping once gives; clip(c·g, c·m) = c·clip(g, m)."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradclip.conformance import oracles
from gradclip.conformance.checks import ULPS
from gradclip.conformance.helpers import CLIPS, PURE, clip, clip_global, examples, make, read
from gradclip.conformance.oracles import EXACT, component, components, exact, ulp
from gradclip.conformance.targets import Target
from gradclip.conformance.values import is_complex, normal, representable, spread


def assert_near(got: np.ndarray, right: np.ndarray, dtype: str, factor: float = 1.0) -> None:
    """Assert that two results of clipping are the same to the rounding of both."""
    allowed = 2 * ULPS[component(dtype)]
    for x, y in zip(components(got).tolist(), (components(right) * factor).tolist(), strict=True):
        assert abs(exact(x) - exact(y)) <= allowed * ulp(exact(y), dtype), f"{x!r} instead of {y!r}"


@pytest.mark.parametrize("function", PURE)
def test_idempotent(target: Target, real_dtype: str, function: str) -> None:
    """What has been clipped is clipped no further, but for rounding."""
    leaves = [(normal(4, real_dtype, 1), real_dtype), (normal((2, 3), real_dtype, 2), real_dtype)]
    limit = float(representable(0.3, real_dtype))

    def twice(g: Any, w: Any) -> list[Any]:
        if function == "adaptive_grad_clip":  # by the norms of the same parameters both times
            one = target.api.adaptive_grad_clip(g, w, limit)
            return [one, target.api.adaptive_grad_clip(one, w, limit)]
        one = PURE[function](target.api, g, limit)
        return [one, PURE[function](target.api, one, limit)]

    grads, params = make(target, leaves), make(target, [(np.ones_like(x), d) for x, d in leaves])
    out = read(target, target.run(twice, grads, params))
    for once, again in zip(out[:2], out[2:], strict=True):
        assert_near(again, once, real_dtype)


def few_bits(n: int, dtype: str, seed: int) -> np.ndarray:
    """Return values with so few bits that they can be multiplied by small integers exactly."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-15, 16, n) / 8.0
    return values + 1j * rng.integers(-15, 16, n) / 8.0 if is_complex(dtype) else values


@pytest.mark.parametrize("factor", [0.25, 3.0, 2.0**9])
@pytest.mark.parametrize("limit", [0.25, 1e3], ids=["clipped", "unclipped"])
@pytest.mark.parametrize("function", [f for f in PURE if f != "adaptive_grad_clip"])  # its threshold is relative: below
def test_scale_covariant(target: Target, real_dtype: str, function: str, limit: float, factor: float) -> None:
    """clip(c·g, c·m) = c·clip(g, m)."""
    leaves = [few_bits(5, real_dtype, 1), few_bits(3, real_dtype, 2)]
    plain = clip(target, function, make(target, [(x, real_dtype) for x in leaves]), limit)
    scaled = clip(target, function, make(target, [(x * factor, real_dtype) for x in leaves]), limit * factor)
    for got, right in zip(read(target, scaled), read(target, plain), strict=True):
        assert_near(got, right, real_dtype, factor)


@pytest.mark.parametrize("factor", [0.25, 3.0, 2.0**9])
def test_adaptive_is_scale_covariant(target: Target, dtype: str, factor: float) -> None:
    """Adaptive clipping: gradients and parameters in another unit."""
    grad, weight = few_bits(6, dtype, 1), few_bits(6, dtype, 2)

    def clipped(g: Any, w: Any) -> Any:
        return target.api.adaptive_grad_clip(g, w, 0.125)

    plain = target.run(clipped, *make(target, [(grad, dtype), (weight, dtype)]))
    scaled = target.run(clipped, *make(target, [(grad * factor, dtype), (weight * factor, dtype)]))
    assert_near(target.read(scaled), target.read(plain), dtype, factor)


def test_over_the_whole_range(target: Target) -> None:
    """By powers of two the result scales exactly, as far as float32 goes."""
    values = spread(33, "float32") + 1
    values = representable(values, "float32")
    units = [2.0**exponent for exponent in (-110, -60, 0, 60, 120)]
    grads = make(target, [(values * unit, "float32") for unit in units])
    clips = target.run(
        lambda g: [target.api.clip_by_norm(x, CLIPS * unit) for x, unit in zip(g, units, strict=True)], grads
    )
    first, *others = (got / unit for got, unit in zip(read(target, clips), units, strict=True))
    for other in others:
        assert_near(other, first, "float32")


def test_norm_is_homogeneous(target: Target, dtype: str) -> None:
    """The norm of c·g is c times that of g, exactly for powers of two."""
    values = few_bits(40, dtype, 1)
    one, other = make(target, [(values, dtype), (values * 0.125, dtype)])
    norms = read(target, target.run(lambda a, b: [target.api.global_norm(a), target.api.global_norm(b)], one, other))
    assert float(norms[0]) == 8 * float(norms[1])


@pytest.mark.needs("quick")
@examples
@given(data=st.data())
def test_never_larger(target: Target, data: st.DataObject) -> None:
    """Clipping never makes an element larger, turns its sign, or moves what is below the threshold."""
    dtype = data.draw(st.sampled_from(target.dtypes))
    values = normal(data.draw(st.integers(0, 9)), dtype, seed=data.draw(st.integers(0, 99)))
    max_norm, order = data.draw(st.floats(0, 8)), data.draw(st.sampled_from([1.0, 2.0, 2.5, math.inf]))
    (clipped,), _ = clip_global(target, [target.make(values, dtype)], max_norm, ord=order)
    after, before = components(target.read(clipped)), components(values)
    assert np.all(np.abs(after) <= np.abs(before))
    assert np.all(after * before >= 0)
    if oracles.norm([values], order) < exact(max_norm) * (1 - EXACT.mpf(10) ** -6):
        assert np.array_equal(after, before)
