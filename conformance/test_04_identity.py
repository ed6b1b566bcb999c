"""Clause 4: where the norm is at most max_norm, leaves come out bit for bit; in place, on a host, not even written."""

import sys

import numpy as np
import pytest

from gradclip.conformance import another_process
from gradclip.conformance.checks import assert_same_bits
from gradclip.conformance.helpers import CLIPS, IN_PLACE, LEAVES, NORM_CLIPS, Leaf, clip, make, read
from gradclip.conformance.oracles import format_of
from gradclip.conformance.targets import Target
from gradclip.conformance.values import is_complex, normal, spread

HOST = ("eager", "host", "writable")


def odd(dtype: str) -> np.ndarray:
    """Return values whose bits arithmetic is likely to change: both zeros, subnormal numbers, 1 + eps."""
    fmt = format_of(dtype)
    values = np.array([0.0, -0.0, fmt.tiny * fmt.eps, -fmt.tiny / 2, 1 + fmt.eps, -1 / 3, 0.1])
    values = np.concatenate([values[:5], normal(2, "bfloat16" if dtype == "bfloat16" else "float16")])
    return values + 1j * values[::-1] if is_complex(dtype) else values


def leaves_of(dtype: str) -> list[Leaf]:
    """Return the leaves that stay as they are: odd values, many magnitudes, nothing."""
    return [(odd(dtype), dtype), (spread((3, 5), dtype), dtype), (odd(dtype)[:0], dtype)]


@pytest.mark.parametrize("function", NORM_CLIPS)
def test_pure(target: Target, dtype: str, function: str) -> None:
    """Every pure function gives back the very bits, of subnormal numbers and negative zeros too."""
    leaves = leaves_of(dtype)
    out = read(target, clip(target, function, make(target, leaves), LEAVES))
    for got, (values, _) in zip(out, leaves, strict=True):
        assert_same_bits(got, values)


@pytest.mark.needs("writable")
@pytest.mark.parametrize("function", IN_PLACE)
def test_in_place(target: Target, real_dtype: str, function: str) -> None:
    """In place, the same."""
    leaves = leaves_of(real_dtype)
    grads = make(target, leaves)
    IN_PLACE[function](target.api, grads, LEAVES)
    for got, (values, _) in zip(read(target, grads), leaves, strict=True):
        assert_same_bits(got, values)


@pytest.mark.parametrize("max_norm", [float("inf"), None, 5.0, 5.000001])
@pytest.mark.parametrize("function", [f for f in NORM_CLIPS if f not in {"clip_by_rms", "adaptive_grad_clip"}])
def test_at_the_threshold(target: Target, dtype: str, function: str, max_norm: float | None) -> None:
    """A norm that equals max_norm is not clipped; neither is any with max_norm=inf or None."""
    values = np.array([3.0, 0.0, -4.0], complex if is_complex(dtype) else float)
    (got,) = clip(target, function, [target.make(values, dtype)], max_norm)
    assert_same_bits(target.read(got), values)


@pytest.mark.parametrize("max_norm", [float("inf"), None])
def test_no_threshold_on_nonfinite(target: Target, real_dtype: str, max_norm: float | None) -> None:
    """Without a threshold, NaN and inf stay where they are: no inf/inf."""
    values = np.array([1.0, np.inf, -np.inf, np.nan])
    for got in target.run(
        lambda g: [target.api.clip_by_global_norm(g, max_norm)[0], target.api.clip_by_norm(g, max_norm)],
        target.make(values, real_dtype),
    ):
        assert_same_bits(target.read(got), values)


def test_unclipped_leaves_beside_clipped(target: Target, dtype: str) -> None:
    """Leaf by leaf, and unit by unit: what is below its own threshold keeps its bits though others are clipped."""
    small, large = odd(dtype), normal(7, dtype, size=1000)
    one = make(target, [(np.ones_like(np.stack([large, large], axis=1)), dtype)])
    both = np.stack([small, large], axis=1)

    def clips(g: list[object], pair: object) -> list[object]:
        api = target.api
        by_unit = api.adaptive_grad_clip(pair, one[0], 2.0, axis=0)
        return [api.clip_by_norm(g, 4.0)[0], api.clip_by_rms(g, 4.0)[0], by_unit]

    by_norm, by_rms, by_unit = read(
        target, target.run(clips, make(target, [(small, dtype), (large, dtype)]), target.make(both, dtype))
    )
    assert_same_bits(by_norm, small)
    assert_same_bits(by_rms, small)
    assert_same_bits(by_unit[:, 0], small)
    assert not np.array_equal(by_unit[:, 1], large)


@pytest.mark.needs(*HOST)
@pytest.mark.parametrize("function", IN_PLACE)
def test_zero_is_below_zero(target: Target, function: str) -> None:
    """Zeros are not above any threshold, 0 too: their signs stay."""
    values = np.array([0.0, -0.0])
    x = target.make(values, "float32")
    IN_PLACE[function](target.api, [x], 0.0 if function != "clip_by_value_" else 1.0)
    assert_same_bits(target.read(x), values)


@pytest.mark.needs(*HOST, "shares")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects pages by Linux's mprotect")
def test_not_written(target: Target, pytestconfig: pytest.Config) -> None:
    """In place on memory that the processor does not let anyone write: a write would end the process, and none comes.

    That the proof can fail is shown by a call that has to write.
    """
    IN_PLACE["clip_by_global_norm_"](target.api, [target.make(normal(4, "float32"), "float32")], CLIPS)  # is there
    written = another_process.run(pytestconfig, target, "protected", "float32", "clip_by_global_norm_", str(CLIPS))
    assert written.returncode < 0, written.stderr
    kept = another_process.run(pytestconfig, target, "protected", "all", "all", str(LEAVES))
    assert kept.returncode == 0, kept.stderr
