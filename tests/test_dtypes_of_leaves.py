"""Every dtype, byte order and layout, through every public function: hypothesis chooses, exact arithmetic judges."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradclip
from gradclip.conformance import oracles
from tests.layouts import (
    DTYPES,
    LAYOUTS,
    REAL,
    WRITABLE,
    broadcast,
    component,
    exactly,
    info,
    is_double,
    mapped,
    mapped_for_reading,
    read_only,
    some,
)

CLIPS = {
    "clip_by_global_norm": lambda leaves, limit: gradclip.clip_by_global_norm(leaves, limit)[0],
    "clip_by_norm": gradclip.clip_by_norm,
    "clip_by_rms": gradclip.clip_by_rms,
    "clip_with_norm": lambda leaves, limit: gradclip.clip_with_norm(leaves, limit, gradclip.norm_partial(leaves)),
    "adaptive_grad_clip": lambda leaves, limit: gradclip.adaptive_grad_clip(leaves, ones_like(leaves), limit),
}
CLIPS_IN_PLACE = {
    "clip_by_global_norm": gradclip.clip_by_global_norm_,
    "clip_by_norm": gradclip.clip_by_norm_,
    "clip_by_rms": gradclip.clip_by_rms_,
    "clip_with_norm": lambda leaves, limit: gradclip.clip_with_norm_(leaves, limit, gradclip.norm_partial(leaves)),
    "adaptive_grad_clip": lambda leaves, limit: gradclip.adaptive_grad_clip_(leaves, ones_like(leaves), limit),
}


def ones_like(leaves):
    return [np.ones(x.shape).astype(x.dtype) for x in leaves]


def factors(name, leaves, limit):
    """By the definitions: what each element of each leaf is to be multiplied by, and by how much that may err."""
    values = [exactly(x) for x in leaves]
    whole = oracles.norm(values)
    together = name in ("clip_by_global_norm", "clip_with_norm")
    for x, leaf in zip(values, leaves, strict=True):
        error = 4e-15 if all(is_double(x.dtype) for x in (leaves if together else [leaf])) else 1e-6
        found = np.empty(x.shape, object)
        if name == "adaptive_grad_clip":  # the parameters are ones
            for key, unit in oracles.units(x, oracles.unit_axes(x.shape)):
                ones = oracles.EXACT.sqrt(unit.size)
                found[key] = oracles.coefficient(oracles.norm([unit]), oracles.exact(limit) * max(ones, 0.001))
        elif name == "clip_by_norm":
            found[...] = oracles.coefficient(oracles.norm([x]), limit)
        elif name == "clip_by_rms":
            found[...] = oracles.coefficient(oracles.rms(x), limit)
        else:
            found[...] = oracles.coefficient(whole, limit)
        yield found, error


def check(got, leaves, wanted):
    for out, x, (f, error) in zip(got, leaves, wanted, strict=True):
        assert (type(out), out.shape) == (np.ndarray, x.shape) or out is x
        assert out.dtype == x.dtype
        close(exactly(out), exactly(x), f, error, x.dtype)


def close(got, before, factor, error, dtype):
    """Every element is rounded once; where nothing changes it is what it was."""
    kind = info(dtype)
    rounding = float(kind.eps) * 0.51 + error
    for out, x, f in zip(parts(got), parts(before), parts(factor, like=before), strict=True):
        if f == 1:
            assert (out, math.copysign(1, out)) == (x, math.copysign(1, x))
        want = oracles.exact(x) * f
        assert abs(oracles.exact(out) - want) <= abs(want) * rounding + float(kind.smallest_subnormal)


def parts(values, like=None):
    flat = values.reshape(-1).tolist()
    if values.dtype.kind == "c":
        return [part for v in flat for part in (v.real, v.imag)]
    return [v for v in flat for _ in range(2)] if like is not None and like.dtype.kind == "c" else flat


def limit_for(leaves, share):
    """A limit that is this share of the norm, but small enough that it is in range for a unit of many elements too."""
    return min(float(oracles.norm([exactly(x) for x in leaves]) * share), 1e306)


shares = st.sampled_from([0.0, 1e-3, 0.3, 2.0])
orders = st.sampled_from([0.5, 1.0, 2.0, 3.0, math.inf])


@given(some(), orders)
def test_norms(made, ord):
    leaves = [x for x, _ in made]
    values = [exactly(x) for x in leaves]
    double = any(is_double(x.dtype) for x in leaves)
    partial = gradclip.norm_partial(leaves, ord=ord)
    power = oracles.EXACT.mpf(1) if ord == math.inf else 1 / oracles.exact(ord)
    stands_for = oracles.exact(float(partial.scale)) * oracles.exact(float(partial.total)) ** power
    whole = oracles.norm(values, ord)
    narrow = any(not is_double(x.dtype) for x in leaves)
    assert abs(stands_for - whole) <= whole * (2e-6 if narrow else 1e-14) * max(1, 1 / ord)
    norms = [gradclip.global_norm(leaves, ord=ord), *gradclip.leaf_norms(leaves, ord=ord)]
    dtypes = [double, *(is_double(x.dtype) for x in leaves)]
    for got, wide, want in zip(norms, dtypes, [whole, *(oracles.norm([v], ord) for v in values)], strict=True):
        assert (got.shape, got.dtype) == ((), np.dtype("f8" if wide else "f4"))
        kind = np.finfo(got.dtype)
        error = want * (2e-6 if narrow else 1e-14) * max(1, 1 / ord) + oracles.exact(float(kind.smallest_subnormal))
        if math.isinf(got):
            assert want + error > float(kind.max)
        else:
            assert abs(oracles.exact(float(got)) - want) <= error


@given(some(), st.sampled_from(sorted(CLIPS)), shares)
def test_pure(made, name, share):
    leaves = [x for x, _ in made]
    before = [base.tobytes() for _, base in made]
    limit = limit_for(leaves, share)
    got = CLIPS[name](leaves, limit)
    assert [base.tobytes() for _, base in made] == before, "the input is not written to"
    check(got, leaves, factors(name, leaves, limit))


@given(some(layouts=WRITABLE), st.sampled_from(sorted(CLIPS_IN_PLACE)), shares)
def test_in_place(made, name, share):
    leaves = [x for x, _ in made]
    before, memory = [np.array(x) for x in leaves], [base.tobytes() for _, base in made]
    limit = limit_for(leaves, share)
    CLIPS_IN_PLACE[name](leaves, limit)
    check([np.array(x) for x in leaves], before, factors(name, before, limit))
    for x, was in zip(leaves, before, strict=True):
        x[...] = was
    assert [base.tobytes() for _, base in made] == memory, "nothing beside the leaves is written to"


@given(some(dtypes=REAL), st.sampled_from([0.0, 0.3, 1e-3, 1e3, 1e39, math.inf]))
def test_by_value(made, limit):
    leaves = [x for x, _ in made]
    before = [base.tobytes() for _, base in made]
    wanted = [clamped(x, limit) for x in leaves]
    for x, out, want in zip(leaves, gradclip.clip_by_value(leaves, limit), wanted, strict=True):
        assert (type(out), out.dtype) == (np.ndarray, x.dtype)
        np.testing.assert_array_equal(exactly(out), want)
    assert [base.tobytes() for _, base in made] == before


@given(some(dtypes=REAL, layouts=WRITABLE), st.sampled_from([0.0, 0.3, 1e-3, 1e3, 1e39, math.inf]))
def test_by_value_in_place(made, limit):
    wanted = [clamped(x, limit) for x, _ in made]
    gradclip.clip_by_value_([x for x, _ in made], limit)
    for (x, _), want in zip(made, wanted, strict=True):
        np.testing.assert_array_equal(exactly(x), want)


def clamped(x, limit):
    bound = float(np.float64(min(limit, float(info(x.dtype).max))).astype(component(x.dtype)))
    return np.clip(exactly(x), -bound, bound)


@given(st.integers(0, 4).flatmap(lambda n: some(lead=n, layouts=LAYOUTS[:-1])), shares)
def test_per_example(made, share):
    leaves = [x for x, _ in made]
    count = leaves[0].shape[0]
    examples = [[np.asarray(exactly(x)[i]) for x in leaves] for i in range(count)]
    limit = limit_for(leaves, share) * 0.7
    fs = [oracles.coefficient(oracles.norm(example), limit) for example in examples]
    summed, clipped = gradclip.clip_per_example(leaves, limit)
    assert int(clipped) == sum(f < 1 for f in fs)
    for out, x in zip(summed, leaves, strict=True):
        assert (out.shape, out.dtype) == (x.shape[1:], x.dtype)
        terms = exactly(x).astype(complex)
        size = float(np.abs(terms).sum()) if x.size else 0.0
        want = sum((terms[i] * float(fs[i]) for i in range(count)), np.zeros(x.shape[1:]))
        rounding = float(info(x.dtype).eps) + (1e-14 if is_double(x.dtype) else 1e-6)
        assert np.all(abs(exactly(out) - want) <= size * rounding + float(info(x.dtype).smallest_subnormal))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_at_every_size(dtype):
    """Large leaves take other ways than small ones."""
    for size in (3, 700, 70_000):
        x = (np.arange(size) % 5 - 2.0).astype(dtype.type).astype(dtype)
        norm = math.sqrt(float(oracles.sum_of_squares(exactly(x))))
        assert float(gradclip.global_norm(x)) == pytest.approx(norm, rel=1e-14 if is_double(dtype) else 1e-6)
        want = (exactly(x) * 0.5).astype(dtype.type).astype(dtype)
        for order in (2.0, 3.0):
            limit = float(gradclip.global_norm(x, ord=order)) / 2
            clipped, _ = gradclip.clip_by_global_norm(x, limit, ord=order)
            assert clipped.dtype == dtype
            np.testing.assert_allclose(exactly(clipped), exactly(want), rtol=1e-14 if is_double(dtype) else 1e-6)


REFUSED = [
    np.zeros(2, np.longdouble),
    np.zeros(2, np.clongdouble),
    np.zeros(2, bool),
    np.zeros(2, ">i4"),
    np.zeros(2, object),
    np.array(["1.0"]),
    np.array(["1.0"], np.dtypes.StringDType()),
    np.zeros(2, "M8[s]"),
    np.zeros(2, "m8[s]"),
    np.zeros(2, "V8"),
    np.zeros(2, [("a", "f8")]),
    np.ones(2, ml_dtypes.float8_e8m0fnu),
    np.zeros(2, ml_dtypes.int4),
]
FUNCTIONS = {
    "global_norm": gradclip.global_norm,
    "leaf_norms": gradclip.leaf_norms,
    "norm_partial": gradclip.norm_partial,
    "clip_by_value": lambda leaves: gradclip.clip_by_value(leaves, 1.0),
    "clip_by_value_": lambda leaves: gradclip.clip_by_value_(leaves, 1.0),
    "clip_per_example": lambda leaves: gradclip.clip_per_example(leaves, 1.0),
    **{name: lambda leaves, clip=clip: clip(leaves, 1.0) for name, clip in CLIPS.items()},
    **{f"{name}_": lambda leaves, clip=clip: clip(leaves, 1.0) for name, clip in CLIPS_IN_PLACE.items()},
}


@pytest.mark.parametrize("bad", REFUSED, ids=lambda x: str(x.dtype))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_other_dtypes_are_refused_before_anything_is_written(bad, name):
    good = np.full(2, 9.0)
    with pytest.raises(TypeError, match=r"grads\[1\] has dtype .*expected real or complex floating-point"):
        FUNCTIONS[name]([good, bad])
    assert (good == 9).all()


@pytest.mark.parametrize("name", CLIPS_IN_PLACE)
def test_what_cannot_be_written_is_refused_before_anything_is_written(name):
    good = np.full(4, 9.0, ">f8")
    for layout in (read_only, mapped_for_reading, broadcast):
        bad, _ = layout(np.full(4, 9.0, ">f8"))
        with pytest.raises(TypeError, match=rf"grads\[1\] .*gradclip\.{name}\(\)"):
            CLIPS_IN_PLACE[name]([good, bad], 1.0)
        assert (good == 9).all()
    twice = np.lib.stride_tricks.as_strided(np.full(4, 9.0, ">f8"), (2, 4), (0, 8))
    with pytest.raises(ValueError, match=rf"grads\[1\] overlaps itself .*gradclip\.{name}\(\)"):
        CLIPS_IN_PLACE[name]([good, twice], 1.0)
    assert (good == 9).all()
    with pytest.raises(ValueError, match=r"grads\[0\] and grads\[1\] overlap"):
        CLIPS_IN_PLACE[name]([good, good.view("<f8")], 1.0)
    assert (good == 9).all()


def test_views_of_one_memory_map_count_once():
    x, _ = mapped(np.array([3.0, 4.0]))
    assert gradclip.global_norm([x, x[:], x]) == 5
    gradclip.clip_by_global_norm_([x, x[:]], 1.0)
    np.testing.assert_allclose(x, [0.6, 0.8], rtol=1e-15)
