"""The partial norm: what it stands for, and that merging is associative."""

import itertools
import math

import numpy as np
import pytest

import gradclip
from tests import exact

ORDERS = [0.5, 1.0, 2.0, 3.0, math.inf]
PARTS = [[3e300, -1e299], [1e-300], [0.0], [], [5e-324, 2.0], [1e200] * 7]


@pytest.mark.parametrize("ord", ORDERS)
def test_any_order_of_merging_gives_the_norm_of_the_whole(ord):
    want = exact.norm(itertools.chain(*PARTS), ord)
    partials = [gradclip.norm_partial(np.array(part, float), ord=ord) for part in PARTS]
    for some in itertools.islice(itertools.permutations(partials), 0, 720, 37):
        left = some[0]
        for other in some[1:]:
            left = left.merge(other)
        right = some[0].merge(some[1]).merge(some[2].merge(some[3])).merge(some[4].merge(some[5]))
        for whole in (left, right):
            assert abs(exact.stands_for(whole.scale, whole.total, ord) - want) <= want * exact.mpmath.mpf(1e-13)


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_merging_never_loses_a_nan_or_an_inf(bad, ord):
    for dtype in (np.float32, np.float64):
        one, other = (gradclip.norm_partial(np.array([v], dtype), ord=ord) for v in (bad, 1e30))
        for whole in (one.merge(other), other.merge(one)):
            assert math.isnan(whole.norm()) if math.isnan(bad) else whole.norm() == math.inf
            assert math.isfinite(whole.scale)


def test_float32_meets_float64():
    narrow, wide = (gradclip.norm_partial(np.array([v], d)) for v, d in ((3.0, np.float32), (4.0, np.float64)))
    assert narrow.norm().dtype == np.float32
    assert narrow.merge(wide).norm().dtype == wide.merge(narrow).norm().dtype == np.float64
    assert narrow.merge(wide).norm() == 5


def test_a_batch_of_partials_merges_element_by_element():
    one = gradclip.NormPartial(np.array([1.0, 10.0]), np.array([9.0, 0.09]), 2.0, np.float64)
    other = gradclip.NormPartial(np.array([2.0, 1.0]), np.array([4.0, 16.0]), 2.0, np.float64)
    assert one.merge(other).norm() == pytest.approx([5.0, 5.0])


@pytest.mark.parametrize("ord", ORDERS)
def test_what_is_sent_to_other_processes_merges_there(ord):
    want = exact.norm(itertools.chain(*PARTS), ord)
    partials = [gradclip.norm_partial(np.array(part, float), ord=ord) for part in PARTS]
    rows = np.stack([partial.to_array() for partial in partials])
    for whole in (gradclip.NormPartial.from_array(rows, ord), partials[0].merged(lambda mine: rows)):
        assert abs(exact.stands_for(whole.scale, whole.total, ord) - want) <= want * exact.mpmath.mpf(1e-13)
    alone = gradclip.NormPartial.from_array(rows[0], ord)
    assert alone.norm() == partials[0].norm()


def test_the_dtype_of_the_norm_is_sent_too():
    narrow, wide = (gradclip.norm_partial(np.array([v], d)) for v, d in ((3.0, np.float32), (4.0, np.float64)))
    for parts, dtype in (([narrow, narrow], np.float32), ([narrow, wide], np.float64), ([wide, narrow], np.float64)):
        whole = gradclip.NormPartial.from_array(np.stack([part.to_array() for part in parts]))
        assert whole.norm().dtype == dtype


def test_a_norm_that_exists_in_no_process_is_merged():
    """Four times 3e38 has a norm beyond float32's range: it is inf, and what is clipped by it is right."""
    grads = np.full(1, 3e38, np.float32)
    whole = gradclip.norm_partial(grads).merged(lambda mine: np.stack([mine] * 4))
    assert whole.norm() == np.inf
    np.testing.assert_allclose(gradclip.clip_with_norm(grads, 1e38, whole), np.float32(0.5e38), rtol=1e-6)


def test_an_empty_partial_merges_with_any_namespace():
    torch = pytest.importorskip("torch")
    jnp = pytest.importorskip("jax.numpy")
    nothing = gradclip.norm_partial([])
    for grads in (torch.tensor([3.0, 4.0]), jnp.array([3.0, 4.0]), np.array([3.0, 4.0])):
        some = gradclip.norm_partial(grads)
        for whole in (some.merge(nothing), nothing.merge(some)):
            assert whole.norm().dtype == some.norm().dtype
            assert float(whole.norm()) == 5


def test_what_cannot_be_sent_or_received_says_so():
    batch = gradclip.NormPartial(np.ones(2), np.ones(2), 2.0, np.float64)
    with pytest.raises(ValueError, match=r"batch of norms, of shape \(2,\), expected one norm"):
        batch.to_array()
    for shape in [(3,), (0, 4), (2, 3), (1, 1, 4)]:
        with pytest.raises(ValueError, match=r"expected \(4,\) or \(number of partials, 4\)"):
            gradclip.NormPartial.from_array(np.ones(shape))
    rows = np.stack([gradclip.norm_partial(np.ones(2), ord=p).to_array() for p in (1, 2)])
    with pytest.raises(ValueError, match=r"partials of ord=\[1.0, 2.0\], expected 2.0; make all with the same ord="):
        gradclip.NormPartial.from_array(rows)


def test_what_does_not_merge_says_so():
    one = gradclip.norm_partial(np.ones(2))
    with pytest.raises(ValueError, match=r"ord=2.0 and ord=1.0.*make both with the same ord="):
        one.merge(gradclip.norm_partial(np.ones(2), ord=1))
    with pytest.raises(TypeError, match=r"got a float, expected a NormPartial; make one with norm_partial\(\)"):
        one.merge(2.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("max_norm", [0.5, 1e-30, 0.0])
def test_clip_with_norm_is_the_second_half(max_norm):
    parts = [np.float32([3e20, 1.0]), np.float32([[4e20]]), np.float32([1e-10])]
    partials = [gradclip.norm_partial(part) for part in parts]
    whole = partials[0].merge(partials[1]).merge(partials[2])
    together, _ = gradclip.clip_by_global_norm(parts, max_norm)
    for part, want in zip(parts, together, strict=True):
        apart = gradclip.clip_with_norm(part, max_norm, whole)
        np.testing.assert_array_equal(apart, want)
        mine = part.copy()
        assert gradclip.clip_with_norm_(mine, max_norm, whole) is None
        np.testing.assert_array_equal(mine, want)


def test_clip_with_a_norm_that_float32_cannot_represent():
    parts = [np.float32([3e38, 3e38]), np.float32([3e38, 3e38])]
    whole = gradclip.norm_partial(parts[0]).merge(gradclip.norm_partial(parts[1]))
    assert whole.norm() == math.inf
    np.testing.assert_allclose(gradclip.clip_with_norm(parts[0], 1.0, whole), 0.5, rtol=1e-6)


@pytest.mark.parametrize("norm", [4.0, np.float32(4), np.array(4.0), 4])
def test_the_norm_may_be_a_number_or_an_array(norm):
    np.testing.assert_array_equal(gradclip.clip_with_norm([np.array([2.0])], 1.0, norm), [[0.5]])
    assert gradclip.clip_with_norm([], 1.0, norm) == []


def test_a_norm_that_is_not_one():
    with pytest.raises(ValueError, match=r"norm=-1.0, expected a norm, which is >= 0"):
        gradclip.clip_with_norm(np.ones(2), 1.0, -1.0)
    with pytest.raises(TypeError, match=r"norm='5' is a str"):
        gradclip.clip_with_norm(np.ones(2), 1.0, "5")
    with pytest.raises(TypeError, match=r"norm has shape \(2,\)"):
        gradclip.clip_with_norm(np.ones(2), 1.0, np.ones(2))


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("nothing", [np.zeros(0), np.zeros(3), np.zeros(3, np.float32), np.zeros(0, np.float16)])
def test_nothing_does_not_swallow_tiny_numbers(nothing, ord):
    tiny = np.array([3e-170, 4e-170, -5e-300])
    want = exact.norm(tiny.tolist(), ord)
    for leaves in ([nothing, tiny], [tiny, nothing]):
        assert exact.relative_error(gradclip.global_norm(leaves, ord=ord), want) <= 1e-14
    empty, full = gradclip.norm_partial([], ord=ord), gradclip.norm_partial(tiny, ord=ord)
    for merged in (empty.merge(full), full.merge(empty), gradclip.norm_partial(nothing, ord=ord).merge(full)):
        assert exact.relative_error(merged.norm(), want) <= 1e-14
