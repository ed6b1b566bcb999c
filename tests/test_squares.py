"""Sums of squares of NumPy arrays, on one thread and on several."""

import tracemalloc
from functools import cache

import numpy as np
import pytest

from gradclip import _squares
from gradclip._squares import Squares
from tests import exact


def sum_of(arrays, threads):
    squares = Squares(threads)
    squares.add_all(arrays)
    return squares.total, squares.right()


@cache
def known(sizes, dtypes):
    """Arrays, and their exact norm."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(n).astype(dtype) for n in sizes for dtype in dtypes]
    return arrays, exact.norm([v for x in arrays for v in x.tolist()])


@pytest.fixture
def shared(monkeypatch):
    monkeypatch.setattr(_squares, "SHARED", 1)


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("sizes", [[20_000], [16_384, 16_385, 40_000], [1024 * 20], [3, 50_000, 0, 17_000, 5]])
@pytest.mark.parametrize("dtypes", [["float32"], ["float64"], ["float32", "float64", "complex64", "float16"]])
def test_every_element_counts_once_whatever_the_threads(threads, sizes, dtypes):
    arrays, norm = known(tuple(sizes), tuple(dtypes))
    total, right = sum_of(arrays, threads)
    assert right
    assert exact.relative_error(exact.mpmath.sqrt(total), norm) < (1e-14 if dtypes == ["float64"] else 1e-7)
    assert sum_of(arrays, threads)[0] == total, "the same bits every time"


@pytest.mark.usefixtures("shared")
def test_a_square_that_leaves_the_dtype_shows_and_warns_of_nothing():
    for bad in (1e30, np.nan, np.inf):
        x = np.ones(100_000, np.float32)
        x[-2] = bad
        assert not sum_of([x], 4)[1]
    assert not sum_of([np.full(100_000, 1e-30, np.float32)], 4)[1]


def test_many_small_arrays_are_not_copied_all_at_once():
    arrays = [np.ones(10_000, np.float32) for _ in range(1000)]
    tracemalloc.start()
    assert sum_of(arrays, 2)[0] == 1e7
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6 < sum(x.nbytes for x in arrays)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_plain_arrays_in_few_calls(dtype):
    arrays, norm = known((3, 0, 700, 16_384, 40_001), (dtype,))
    total = _squares.sum_of_plain(arrays)
    assert exact.relative_error(exact.mpmath.sqrt(total), norm) < (1e-14 if dtype == "float64" else 1e-7)
    assert _squares.sum_of_plain([np.ones((20, 30), dtype)]) == 600
    other = "float64" if dtype == "float32" else "float32"
    for x in (arrays[3].astype(other), arrays[3].astype("float16"), arrays[3][::2], np.ones((20, 30), dtype).T):
        assert _squares.sum_of_plain([arrays[0], x]) is None
    assert _squares.sum_of_plain([arrays[3].astype("complex64")]) is None
    with np.errstate(all="ignore"):
        for value in (1e-200, 1e200, np.nan):
            assert _squares.sum_of_plain([np.full(4, value).astype(dtype)]) is None


def test_many_megabytes_are_left_to_several_threads(monkeypatch):
    x = np.ones(1 << 16, np.float32)
    monkeypatch.setattr(_squares, "SHARED", x.nbytes)
    assert _squares.sum_of_plain([x]) is None
    assert _squares.sum_of_plain([x[1:]]) == x.size - 1
    assert _squares.sum_of_plain([x[:1000]] * 200) is None, "too many to lay end to end at once"
