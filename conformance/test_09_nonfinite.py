"""Clause 9: `nonfinite` chooses what happens to gradients with NaN or inf; the device decides, not the host."""

import math
from typing import Any

import numpy as np
import pytest

from gradclip.conformance import oracles
from gradclip.conformance.checks import assert_norm_of, assert_same_bits, assert_times
from gradclip.conformance.helpers import clip_global, make, number, read
from gradclip.conformance.oracles import coefficient, format_of
from gradclip.conformance.targets import Target
from gradclip.conformance.values import is_complex, normal

BAD = {"nan": [math.nan], "inf": [math.inf], "-inf": [-math.inf], "nan and inf": [math.inf, 1.0, math.nan]}
PLACES = {"first leaf": 0, "last leaf": 2}


def leaves_with(target: Target, dtype: str, bad: str, place: str) -> list[np.ndarray]:
    """Return leaves of which one has bad elements among good ones."""
    leaves = [normal(3, dtype, 1), normal((2, 2), dtype, 2), normal(3, dtype, 3)]
    i = PLACES[place]
    leaves[i] = np.concatenate([leaves[i], np.array(BAD[bad], leaves[i].dtype)])
    return leaves


def _norm_is_right(norm: float, bad: str) -> bool:
    return math.isnan(norm) if "nan" in bad else norm == math.inf


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", BAD)
def test_propagate(target: Target, real_dtype: str, bad: str, place: str) -> None:
    """By default NaN becomes NaN everywhere; inf becomes NaN where it is and 0 elsewhere, as with the peers."""
    leaves = leaves_with(target, real_dtype, bad, place)
    clipped, norm = clip_global(target, make(target, [(x, real_dtype) for x in leaves]), 1.0)
    assert _norm_is_right(norm, bad)
    for got, x in zip(read(target, clipped), leaves, strict=True):
        if "nan" in bad:
            assert np.all(np.isnan(got))
        else:
            assert np.array_equal(np.isnan(got), np.isinf(x))
            assert np.all(got[np.isfinite(x)] == 0)


def test_propagate_complex(target: Target, complex_dtype: str) -> None:
    """A NaN in one part of a complex number spreads like any."""
    leaves = [normal(3, complex_dtype), np.array([complex(1.0, math.nan), 2.0])]
    clipped, norm = clip_global(target, make(target, [(x, complex_dtype) for x in leaves]), 1.0)
    assert math.isnan(norm)
    assert all(np.all(np.isnan(x)) for x in read(target, clipped))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", BAD)
def test_zero(target: Target, dtype: str, bad: str, place: str) -> None:
    """nonfinite="zero": all leaves become zero, and the norm still tells."""
    leaves = leaves_with(target, dtype, bad, place)
    clipped, norm = clip_global(target, make(target, [(x, dtype) for x in leaves]), 1.0, nonfinite="zero")
    assert not math.isfinite(norm)
    assert all(np.all(x == 0) for x in read(target, clipped))


@pytest.mark.needs("!jit")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", BAD)
def test_error(target: Target, dtype: str, bad: str, place: str) -> None:
    """nonfinite="error": FloatingPointError with the path of the leaf."""
    leaves = leaves_with(target, dtype, bad, place)
    grads = make(target, [(x, dtype) for x in leaves])
    with target.asking(), pytest.raises(FloatingPointError, match=rf"grads\[{PLACES[place]}\]"):
        target.api.clip_by_global_norm(grads, 1.0, nonfinite="error")


@pytest.mark.needs("jit")
def test_error_under_tracing(target: Target) -> None:
    """nonfinite="error" cannot be had where no value is known, which an error says; it is not ignored."""
    grads = [target.make(np.array([1.0, math.nan]), "float32")]
    with pytest.raises(ValueError, match="nonfinite"):
        clip_global(target, grads, 1.0, nonfinite="error")


def _assert_clips(target: Target, values: np.ndarray, dtype: str, max_norm: float, policy: str) -> None:
    with target.asking():
        (clipped,), norm = clip_global(target, [target.make(values, dtype)], max_norm, nonfinite=policy)
    assert_norm_of(norm, [values], [dtype])
    assert_times(target.read(clipped), values, coefficient(oracles.norm([values]), max_norm), dtype)


@pytest.mark.parametrize("policy", ["propagate", "zero"])
@pytest.mark.parametrize("max_norm", [0.5, 1e4])
def test_finite(target: Target, dtype: str, policy: str, max_norm: float) -> None:
    """On finite gradients the policies make no difference."""
    _assert_clips(target, normal(6, dtype), dtype, max_norm, policy)


@pytest.mark.needs("!jit")
@pytest.mark.parametrize("max_norm", [0.5, 1e4])
def test_no_error_on_finite(target: Target, dtype: str, max_norm: float) -> None:
    """Neither does "error"."""
    _assert_clips(target, normal(6, dtype), dtype, max_norm, "error")


@pytest.mark.parametrize("policy", ["propagate", "zero"])
def test_overflowing_norm_is_of_finite_gradients(target: Target, real_dtype: str, policy: str) -> None:
    """Finite gradients whose norm is not representable are finite: they are clipped."""
    _assert_clips(target, np.full(4, format_of(real_dtype).largest), real_dtype, 1.0, policy)


@pytest.mark.needs("!jit")
def test_no_error_on_overflowing_norm(target: Target, real_dtype: str) -> None:
    """Nor are they an error."""
    _assert_clips(target, np.full(4, format_of(real_dtype).largest), real_dtype, 1.0, "error")


@pytest.mark.parametrize("ord", [1.0, 3.0, math.inf])
@pytest.mark.parametrize("bad", BAD)
def test_other_orders(target: Target, real_dtype: str, bad: str, ord: float) -> None:
    """In every order the norm of non-finite gradients is not finite, and "zero" sees it; NaN wins over inf."""
    leaves = leaves_with(target, real_dtype, bad, "first leaf")
    grads = make(target, [(x, real_dtype) for x in leaves])
    clipped, norm = clip_global(target, grads, 1.0, ord=ord, nonfinite="zero")
    assert _norm_is_right(norm, bad)
    assert all(np.all(x == 0) for x in read(target, clipped))


@pytest.mark.needs("writable")
@pytest.mark.parametrize("policy", ["propagate", "zero"])
@pytest.mark.parametrize("bad", BAD)
def test_in_place(target: Target, real_dtype: str, bad: str, policy: str) -> None:
    """In place, the same as the pure function."""
    leaves = leaves_with(target, real_dtype, bad, "last leaf")
    grads = make(target, [(x, real_dtype) for x in leaves])
    pure, _ = clip_global(target, make(target, [(x, real_dtype) for x in leaves]), 1.0, nonfinite=policy)
    norm = target.api.clip_by_global_norm_(grads, 1.0, nonfinite=policy)
    assert _norm_is_right(number(target, norm), bad)
    for got, right in zip(read(target, grads), read(target, pure), strict=True):
        assert np.array_equal(got, right, equal_nan=True)


def test_partials_carry_it(target: Target, dtype: str) -> None:
    """NaN and inf pass through partials and their merging, from either side."""
    one = complex if is_complex(dtype) else float
    parts = [normal(3, dtype), np.array([1.0, math.nan], one), np.array([math.inf, 2.0], one)]

    def norms(grads: list[Any]) -> list[Any]:
        good, nan, inf = (target.api.norm_partial(g) for g in grads)
        return [
            p.norm()
            for p in (
                good.merge(nan),
                nan.merge(good),
                inf.merge(nan),
                nan.merge(inf),
                good.merge(inf),
                inf.merge(good),
            )
        ]

    got = [float(x) for x in read(target, target.run(norms, make(target, [(p, dtype) for p in parts])))]
    assert all(math.isnan(x) for x in got[:4])
    assert got[4:] == [math.inf, math.inf]


def test_leaf_by_leaf(target: Target, real_dtype: str) -> None:
    """Clipped each by its own norm, a leaf with NaN becomes NaN, and the others are as if it were not there."""
    good, bad = normal(5, real_dtype), np.array([1.0, math.nan])
    grads = make(target, [(good, real_dtype), (bad, real_dtype)])
    for name in ("clip_by_norm", "clip_by_rms"):
        both = target.run(lambda g, f=name: getattr(target.api, f)(g, 0.5), grads)
        alone = target.run(lambda g, f=name: getattr(target.api, f)(g, 0.5), grads[:1])
        assert_same_bits(target.read(both[0]), target.read(alone[0]))
        assert np.all(np.isnan(target.read(both[1])))
