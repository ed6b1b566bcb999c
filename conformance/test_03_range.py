"""Clause 3: finite leaves give a right answer at any magnitude, also where the norm itself cannot be represented."""

import math
from typing import Any

import numpy as np
import pytest

from gradclip.conformance import oracles
from gradclip.conformance.checks import assert_clipped, assert_norm, assert_norm_of, assert_times
from gradclip.conformance.helpers import clip_global, make, number, read
from gradclip.conformance.oracles import coefficient, exact, format_of, norm_dtype
from gradclip.conformance.targets import Target
from gradclip.conformance.values import is_complex, representable

NORMAL = ("least", "4*least", "2^-99", "2^-60", "2^-30", "2^30", "2^60", "2^99", "largest/4", "largest")
SUBNORMAL = ("2*tiny", "tiny/4", "least subnormal")


def magnitude(name: str, dtype: str) -> float:
    """Return a magnitude by its name: a power of two, or one at an end of the dtype's range."""
    fmt = format_of(dtype)
    if name.startswith("2^"):
        return 2.0 ** min(max(int(name[2:]), fmt.emin + 2), fmt.emax - 2)
    ends = {"least": 4 * fmt.tiny, "4*least": 16 * fmt.tiny, "largest": fmt.largest, "largest/4": fmt.largest / 4}
    below = {"2*tiny": 2 * fmt.tiny, "tiny/4": fmt.tiny / 4, "least subnormal": fmt.tiny * fmt.eps}
    return {**ends, **below}[name]


def at(name: str, dtype: str) -> np.ndarray:
    """Return five values, of which none is larger than a magnitude, and none but 0 has parts below a quarter of it."""
    size = magnitude(name, dtype)
    values = representable(np.array([0.75, -1.0, 0.5, 0.0, 0.625]) * size, dtype)
    return representable(values + 1j * values[::-1] * 0.5, dtype) if is_complex(dtype) else values


def _check(target: Target, dtype: str, values: np.ndarray, ord: float = 2.0) -> None:
    norm = number(target, target.run(lambda g: target.api.global_norm(g, ord=ord), target.make(values, dtype)))
    assert_norm_of(norm, [values], [dtype], ord)


def _check_clip(target: Target, dtype: str, values: np.ndarray, max_norm: float) -> None:
    (clipped,), norm = clip_global(target, [target.make(values, dtype)], max_norm)
    assert_norm_of(norm, [values], [dtype])
    assert_times(target.read(clipped), values, coefficient(oracles.norm([values]), max_norm), dtype)


@pytest.mark.parametrize("size", NORMAL)
def test_norm(target: Target, dtype: str, size: str) -> None:
    """The norm is right from the least to the largest normal number; where it overflows, it is inf."""
    _check(target, dtype, at(size, dtype))


@pytest.mark.parametrize("size", SUBNORMAL)
def test_norm_of_subnormals(target: Target, dtype: str, size: str) -> None:
    """The same below the least normal number, and where some elements are."""
    _check(target, dtype, at(size, dtype))


@pytest.mark.parametrize("ord", [0.5, 1.0, 3.0, 16.0, math.inf])
@pytest.mark.parametrize("size", NORMAL)
def test_norm_of_any_order(target: Target, real_dtype: str, size: str, ord: float) -> None:
    """Neither do powers other than squares leave the range."""
    _check(target, real_dtype, at(size, real_dtype), ord)


@pytest.mark.parametrize("size", NORMAL)
def test_clip_to_one(target: Target, dtype: str, size: str) -> None:
    """Clipping to 1 from any magnitude, and leaving alone what is below; the coefficient is right where it is tiny."""
    _check_clip(target, dtype, at(size, dtype), 1.0)


@pytest.mark.parametrize("size", NORMAL[1:])
def test_clip_to_half(target: Target, dtype: str, size: str) -> None:
    """Clipping at any magnitude to about half of the norm; the threshold is as tiny or huge as the norm."""
    _check_clip(target, dtype, at(size, dtype), magnitude(size, dtype) / 2)


@pytest.mark.parametrize("size", SUBNORMAL)
def test_clip_subnormals(target: Target, dtype: str, size: str) -> None:
    """Subnormal numbers are clipped to about half of their norm."""
    _check_clip(target, dtype, at(size, dtype), magnitude(size, dtype) / 2)


@pytest.mark.parametrize("max_norm", [1e-30, 1e-7, 1.0, 1e30])
def test_norm_not_representable(target: Target, real_dtype: str, max_norm: float) -> None:
    """Where the norm overflows its dtype it is inf, and the clipped leaves are right all the same."""
    values = np.full(4, format_of(real_dtype).largest)
    (clipped,), norm = clip_global(target, [target.make(values, real_dtype)], max_norm)
    assert_norm_of(norm, [values], [real_dtype])
    if math.isinf(oracles.round_to(oracles.norm([values]), norm_dtype([real_dtype]))):
        assert norm == math.inf
    assert_times(target.read(clipped), values, coefficient(oracles.norm([values]), max_norm), real_dtype)


def test_far_apart(target: Target, real_dtype: str) -> None:
    """The largest and the least magnitude together, in one leaf and in two."""
    fmt = format_of(real_dtype)
    low, high = fmt.tiny * 8, fmt.largest / 8  # a coefficient of about a half: it leaves what is normal normal
    for leaves in (
        [np.array([low, high, -low])],
        [np.array([low]), np.array([high])],
        [np.array([high]), np.array([low])],
    ):
        clipped, norm = clip_global(target, make(target, [(x, real_dtype) for x in leaves]), high / 2)
        assert_norm_of(norm, leaves, [real_dtype])
        for got, x in zip(read(target, clipped), leaves, strict=True):
            assert_times(got, x, exact(high / 2) / oracles.norm(leaves), real_dtype)


def test_tiny_gradients_stay(target: Target, real_dtype: str) -> None:
    """What is far below the threshold is left alone, not lost."""
    values = at("4*least", real_dtype)
    (clipped,), norm = clip_global(target, [target.make(values, real_dtype)], 1.0)
    assert np.array_equal(target.read(clipped), values)
    assert_norm_of(norm, [values], [real_dtype])


@pytest.mark.parametrize("size", ["2^-99", "2^99", "largest/4"])
def test_other_functions(target: Target, real_dtype: str, size: str) -> None:
    """By each leaf's norm, by root mean square, unit by unit and by example: the same range."""
    values, limit = at(size, real_dtype), magnitude(size, real_dtype) / 4
    x, one = make(target, [(values, real_dtype), (np.ones_like(values), real_dtype)])
    api = target.api

    def clips(g: Any, w: Any) -> Any:
        by_example, _ = api.clip_per_example(g[None, :], limit)
        return [api.clip_by_norm(g, limit), api.clip_by_rms(g, limit), api.adaptive_grad_clip(g, w, limit), by_example]

    norm = oracles.norm([values])
    floor = oracles.norm([np.ones(5)]) * exact(limit)
    rights = [coefficient(norm, limit), coefficient(oracles.rms(values), limit), coefficient(norm, floor), None]
    rights[3] = rights[0]
    for got, right in zip(read(target, target.run(clips, x, one)), rights, strict=True):
        assert_times(got, values, right, real_dtype)


def test_partials_of_any_magnitude(target: Target, real_dtype: str) -> None:
    """Partials hold norms that no number of the dtype could, and merge without loss."""
    fmt = format_of(real_dtype)
    parts = [np.array([fmt.tiny]), np.full(3, fmt.largest), np.array([1.0])]

    def clipped(grads: list[Any]) -> Any:
        low, high, one = (target.api.norm_partial(g) for g in grads)
        whole = one.merge(high).merge(low)
        return target.api.clip_with_norm(grads, 1.0, whole), whole.norm()

    out, norm = target.run(clipped, make(target, [(p, real_dtype) for p in parts]))
    assert_norm(number(target, norm), oracles.norm(parts), norm_dtype([real_dtype]))
    assert_times(target.read(out[1]), parts[1], 1 / oracles.norm(parts), real_dtype)


@pytest.mark.needs("writable")
@pytest.mark.parametrize("size", NORMAL)
def test_in_place(target: Target, real_dtype: str, size: str) -> None:
    """In place, the same range."""
    values = at(size, real_dtype)
    x = target.make(values, real_dtype)
    norm = target.api.clip_by_global_norm_([x], magnitude(size, real_dtype) / 2)
    assert_norm_of(number(target, norm), [values], [real_dtype])
    right = coefficient(oracles.norm([values]), magnitude(size, real_dtype) / 2)
    assert_times(target.read(x), values, right, real_dtype)


def test_float16_below_its_coefficient(target: Target, half_dtype: str) -> None:
    """60,000 clipped to 0.001: the coefficient 1.7e-8 is below float16, the result is not."""
    values = representable(np.array([60000.0]), half_dtype)
    (clipped,), _ = clip_global(target, [target.make(values, half_dtype)], 1e-3)
    assert_clipped([target.read(clipped)], [values], [half_dtype], 1e-3)
