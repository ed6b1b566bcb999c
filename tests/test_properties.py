"""Properties that hold for any gradients, tried on many: hypothesis chooses, exact arithmetic judges."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gradclip
from tests import exact

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
ROUNDING = {name: float(ml_dtypes.finfo(dtype).eps) for name, dtype in DTYPES.items()}
SUBNORMAL = {name: float(ml_dtypes.finfo(dtype).smallest_subnormal) for name, dtype in DTYPES.items()}


orders = st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0, 10.0, math.inf])
dtypes = st.sampled_from(sorted(DTYPES))


@st.composite
def values(draw, dtype):
    """An array of any shape and of any magnitude of its dtype, subnormals and zeros too."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    n = math.prod(shape)
    top = math.log2(float(ml_dtypes.finfo(DTYPES[dtype]).max)) - 0.01
    exponents = st.one_of(st.floats(-1080, top), st.floats(-5, 5))
    numbers = st.builds(lambda sign, e: sign * 2.0**e, st.sampled_from([-1.0, 0.0, 1.0]), exponents)
    flat = draw(st.lists(numbers, min_size=n, max_size=n))
    return np.array(flat, float).reshape(shape).astype(DTYPES[dtype])


@st.composite
def containers(draw, leaf):
    """Any nesting of what may hold leaves; None too."""
    nest = st.recursive(
        st.one_of(leaf, st.none()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.tuples(inner, inner),
            st.dictionaries(st.sampled_from("abcde"), inner, max_size=3),
        ),
        max_leaves=6,
    )
    return draw(nest)


def flat(grads):
    if grads is None:
        return []
    if isinstance(grads, np.ndarray):
        return [float(v) for v in grads.reshape(-1)]
    return [v for inner in (grads.values() if isinstance(grads, dict) else grads) for v in flat(inner)]


@given(dtypes.flatmap(lambda d: st.tuples(st.just(d), containers(values(d)))), orders)
def test_the_norm_is_right_for_any_container_at_any_magnitude(case, ord):
    dtype, grads = case
    want = exact.norm(flat(grads), ord)
    partial = gradclip.norm_partial(grads, ord=ord)
    got = exact.stands_for(partial.scale, partial.total, ord)
    bound = (1e-14 if dtype == "float64" else 1e-6) * max(1, 1 / ord)
    assert abs(got - want) <= want * bound


@given(dtypes.flatmap(lambda d: st.tuples(st.just(d), containers(values(d)))), st.floats(-40, 40), orders)
def test_clipping_is_one_coefficient_for_all(case, exponent, ord):
    dtype, grads = case
    max_norm = 2.0**exponent
    clipped, _ = gradclip.clip_by_global_norm(grads, max_norm, ord=ord)
    size = exact.norm(flat(grads), ord)
    assume(not abs(size - max_norm) <= size * 1e-6)  # on the edge either answer is right
    bound = ROUNDING[dtype] * 1.01 + (1e-14 if dtype == "float64" else 1e-6) * max(1, 1 / ord)
    for got, before, want in zip(flat(clipped), flat(grads), exact.clipped(flat(grads), max_norm, ord), strict=True):
        if size <= max_norm:
            assert (got, math.copysign(1, got)) == (before, math.copysign(1, before))
        assert abs(got - want) <= abs(want) * bound + SUBNORMAL[dtype]


@given(dtypes.flatmap(lambda d: containers(values(d))), st.floats(0, 1e3))
def test_in_place_and_pure_agree(grads, max_norm):
    pure, norm = gradclip.clip_by_global_norm(grads, max_norm)
    again = gradclip.clip_by_global_norm_(grads, max_norm)
    assert norm == again
    np.testing.assert_allclose(flat(grads), flat(pure), rtol=1e-2, atol=1e-7)


@given(dtypes.flatmap(lambda d: values(d)), st.data())
def test_any_partition_into_leaves_has_the_same_norm(leaf, data):
    line = leaf.reshape(-1)
    cuts = sorted(data.draw(st.lists(st.integers(0, line.size), max_size=5)))
    parts = np.split(line, cuts)
    whole, apart = gradclip.norm_partial([line]), gradclip.norm_partial([part.copy() for part in parts])
    merged = gradclip.norm_partial([])
    for part in parts:
        merged = merged.merge(gradclip.norm_partial(part.copy()))
    want = exact.norm(flat(line))
    for partial in (whole, apart, merged):
        assert abs(exact.stands_for(partial.scale, partial.total, 2) - want) <= want * 1e-14 + want * (
            0 if leaf.dtype == np.float64 else 1e-6
        )


@given(values("float64"), st.floats(1e-6, 1e6), st.integers(-30, 30))
def test_idempotent_and_scale_covariant(grads, max_norm, exponent):
    assume(grads.size and 1e-200 < np.abs(grads).max() < 1e200)
    once, _ = gradclip.clip_by_global_norm(grads, max_norm)
    twice, _ = gradclip.clip_by_global_norm(once, max_norm)
    np.testing.assert_allclose(twice, once, rtol=1e-14, atol=2 * 5e-324)
    c = 2.0**exponent
    scaled, _ = gradclip.clip_by_global_norm(grads * c, max_norm * c)
    rounding = 2 * 5e-324 * max(1.0, c)  # a subnormal element has few bits left
    np.testing.assert_allclose(scaled, once * c, rtol=1e-14, atol=rounding)


@given(values("float32"), st.sampled_from(["nan", "inf", "-inf"]), st.sampled_from(["propagate", "zero"]), orders)
def test_one_nonfinite_element_decides(grads, bad, nonfinite, ord):
    assume(grads.size)
    grads.reshape(-1)[grads.size // 2] = float(bad)
    clipped, norm = gradclip.clip_by_global_norm([grads, np.ones(2)], 1.0, ord=ord, nonfinite=nonfinite)
    assert not math.isfinite(norm)
    out = np.array(flat(clipped))
    if nonfinite == "zero":
        assert (out == 0).all()
    elif bad == "nan":
        assert np.isnan(out).all()
    else:
        bad_ones = ~np.isfinite(flat([grads, np.ones(2)]))
        assert np.isnan(out[bad_ones]).all()
        assert (out[~bad_ones] == 0).all()


@given(dtypes.flatmap(lambda d: st.lists(values(d), min_size=1, max_size=3)), st.data())
def test_repeated_and_aliased_leaves_count_once(leaves, data):
    picks = data.draw(st.lists(st.integers(0, len(leaves) - 1), min_size=1, max_size=6))
    views = data.draw(st.lists(st.booleans(), min_size=len(picks), max_size=len(picks)))
    repeated = [leaves[i][...] if view else leaves[i] for i, view in zip(picks, views, strict=True)]
    distinct = [leaves[i] for i in dict.fromkeys(picks)]
    norm = gradclip.global_norm(distinct)
    assert gradclip.global_norm(repeated) == norm
    want, _ = gradclip.clip_by_global_norm([x.copy() for x in distinct], 0.5)
    gradclip.clip_by_global_norm_(repeated, 0.5)
    for x, y in zip(distinct, want, strict=True):
        np.testing.assert_allclose(x.astype(float), y.astype(float), rtol=1e-2, atol=1e-7)


@given(dtypes.flatmap(lambda d: containers(values(d))), st.floats(0, 1e5), st.floats(0, 1e5))
def test_by_value_is_the_interval(grads, low, high):
    clipped = gradclip.clip_by_value(grads, high, min_value=-low)
    for got, before in zip(flat(clipped), flat(grads), strict=True):
        if -low <= before <= high:
            assert got == before
        else:
            assert got == pytest.approx(high if before > high else -low, rel=1e-2, abs=1e-7)


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_exponent(dtype):
    kind = ml_dtypes.finfo(DTYPES[dtype])
    for exponent in range(int(math.log2(float(kind.smallest_subnormal))), int(math.log2(float(kind.max)))):
        leaf = np.array([2.0**exponent, 0.0, -(2.0**exponent)]).astype(DTYPES[dtype])
        partial = gradclip.norm_partial([leaf])
        want = exact.norm(flat(leaf))
        assert abs(exact.stands_for(partial.scale, partial.total, 2) - want) <= want * 1e-14
