"""Sums of squares of CPU tensors: every way that they are added, at the sizes where one takes over from the other."""

import math
import weakref

import numpy as np
import pytest
import torch

from gradclip.backends.torch import _rows, _squares, get_total_norm
from tests.backends.torch.helpers import normal

HALF = [torch.float16, torch.bfloat16]
LARGE = 1 << 23


def exact_sum(*leaves):
    """The sum of squares, of which each is exact in float64 for dtypes narrower than that."""
    return math.fsum(float(np.vecdot(part, part)) for x in leaves for part in x.double().reshape(-1, 1).numpy())


def wide_sum(*leaves):
    """The sum of squares in float64, added in a tree: good to 1e-14, and fast enough for large leaves."""
    return sum(float((x.double() ** 2).sum()) for x in leaves)


def sum_of(leaves):
    sizes = _squares.sizes_of(leaves)
    squares = _squares.squares_of(_squares.parts_of(leaves, sizes), sum(sizes))
    assert squares is not None
    return squares


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 513, (1 << 14) - 1, 1 << 14, (1 << 15) - 1, (1 << 15) + 77])
def test_any_size(dtype, size):
    x = normal(size, dtype=dtype)
    squares = sum_of([x])
    assert squares.total == pytest.approx(exact_sum(x), rel=1e-14 if dtype == torch.float64 else 2e-7)
    assert squares.right()


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_without_its_kernel(dtype, monkeypatch):
    x = normal(100_001, dtype=dtype)
    assert _rows.adds_half(dtype), "the way around it is what other tests take"
    by_rows = sum_of([x]).total
    monkeypatch.setattr(_squares, "adds_half", lambda dtype: False)
    assert by_rows == pytest.approx(sum_of([x]).total, rel=1e-7)
    assert by_rows == pytest.approx(wide_sum(x), rel=1e-7)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_large_model(threads):
    before = torch.get_num_threads()
    leaves = [normal(LARGE + 1), normal(257, 1025), normal(77, 3).T, normal(300_000), normal(3)]
    torch.set_num_threads(threads)
    try:
        squares = sum_of(leaves)
        again = sum_of(leaves)
    finally:
        torch.set_num_threads(before)
    assert squares.total == pytest.approx(wide_sum(*leaves), rel=1e-7)
    assert squares.total == again.total
    assert squares.right()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1 << 21, (1 << 21) + 77, 300_000])
@pytest.mark.parametrize("cached", [True, False])
def test_more_rows_than_are_calculated_at_once(dtype, size, cached, monkeypatch):
    x = normal(size, dtype=dtype)
    monkeypatch.setattr(_rows, "_ROWS", 1000)
    monkeypatch.setattr(_squares, "_CACHED", size + cached)
    assert sum_of([x]).total == pytest.approx(wide_sum(x), rel=1e-7)


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 300])
@pytest.mark.parametrize("size", [1 << 17, (1 << 17) + 1, 200_000, (1 << 20) + 511, (1 << 20) + 1023])
def test_every_element_is_read_once_at_one_place_or_many(size, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(_rows, "_ROWS", 1000)
    x = torch.zeros(size)
    for i in [0, 127, 128, 255, 256, 511, 512, size // 2 - 1, size // 2, *range(size - 1025, size, 64), size - 1]:
        x[i] = 2.0
        assert _rows.sum_of_large(x) == 4.0
        assert _rows.sum_from_memory([x, x]) == 8.0
        x[i] = 0.0


@pytest.mark.parametrize("cached", [True, False])
def test_another_default_dtype_changes_nothing(cached, monkeypatch):
    x = normal(1 << 18)
    monkeypatch.setattr(_squares, "_CACHED", x.numel() + cached)
    want = sum_of([x]).total
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert sum_of([x]).total == want
        assert float(get_total_norm([x])) == pytest.approx(math.sqrt(want), rel=1e-7)
    finally:
        torch.set_default_dtype(default)


@pytest.mark.parametrize("value", [1e-30, 1e30, math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_model_out_of_range_is_noticed(value, dtype):
    x = torch.full((LARGE,), value, dtype=dtype)
    assert not sum_of([x]).right()
    if math.isfinite(value):
        assert float(get_total_norm(x)) == pytest.approx(float(x[0]) * math.sqrt(LARGE), rel=1e-6)


def test_equal_numbers_are_the_worst_case():
    """Then every rounding goes the same way. The contract allows 1e-6."""
    for value in np.linspace(0.5, 1.0, 23, dtype=np.float32):
        for dtype, size in ((torch.float32, LARGE), (torch.float16, 1 << 16), (torch.bfloat16, 1 << 16)):
            x = torch.full((size,), float(value), dtype=dtype)
            assert float(get_total_norm(x)) == pytest.approx(float(x[0]) * math.sqrt(size), rel=4e-7)


def test_small_leaves_are_laid_end_to_end_in_parts_that_fit_into_the_cache():
    leaves = [normal(n % 7, 90) for n in range(4000)]
    parts = list(_squares.parts_of(leaves, _squares.sizes_of(leaves)))
    assert 1 < len(parts) < 10
    assert max(x.numel() for x in parts) < 2 * _squares._PACKED
    assert sum_of(leaves).total == pytest.approx(wide_sum(*leaves), rel=1e-7)
    vectors = [normal(64, seed=i) for i in range(100)]
    assert sum_of(vectors).total == pytest.approx(wide_sum(*vectors), rel=1e-7)
    mixed = [*vectors, normal(8, 8), normal(3)]  # looks like vectors from both ends
    assert sum_of(mixed).total == pytest.approx(wide_sum(*mixed), rel=1e-7)


def test_of_what_is_laid_end_to_end_nothing_is_kept():
    alive, most = set(), 0

    def watched():
        nonlocal most
        for part in _squares.parts_of(leaves, _squares.sizes_of(leaves)):
            alive.add(id(part))
            weakref.finalize(part, alive.discard, id(part))
            most = max(most, len(alive))
            yield part

    leaves = [normal(10_000, seed=i) for i in range(400)]
    assert _squares.squares_of(watched(), 4_000_000).total == pytest.approx(wide_sum(*leaves), rel=1e-7)
    assert most <= 3 < sum(x.numel() for x in leaves) / _squares._PACKED
    assert not _squares.joins_little(_squares.sizes_of(leaves)), "so the short cut leaves them to this"


def test_plain_ones_in_few_calls():
    leaves = [normal(700, seed=i) for i in range(3)] + [normal(300, 1001)]
    parts = list(_squares.parts_of(leaves, _squares.sizes_of(leaves)))
    assert _squares.sum_of_plain(parts) == sum_of(leaves).total
    x = leaves[0]
    for other in (x.double(), x[::2], torch.nn.Parameter(x), x.to_sparse(), x.to("meta"), torch._neg_view(x)):
        assert _squares.sum_of_plain([x, other]) is None
    for value in (1e-30, 1e30, math.nan):
        assert _squares.sum_of_plain([torch.full((1000,), value)]) is None
