"""The kernels in C: right at every magnitude, address and length, and the same bits whatever the number of threads."""

import ctypes
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from gradclip import _native
from gradclip._native import CODES, Kernels, Table, Threads
from tests import exact

DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
LENGTHS = [0, 1, 3, 4, 5, 31, 32, 33, 1023, 1024, 1025, 2047, 2048, 2049, 5000, 33_000, 132_000]

ONE, TWO = Threads(1), Threads(2)

ADDED_IN_FLOAT32 = {"float16", "bfloat16"}
"""Of these, eight squares are added up in float32 first: five roundings follow one another at most."""

pytestmark = pytest.mark.skipif(_native.kernels() is None, reason=f"no kernels: {_native.status()}")


@pytest.fixture(params=[0, 1], ids=["plain", "fastest"])
def kernels(request):
    return Kernels(_native.PATH, request.param)


@pytest.fixture(params=["started", "PyTorch's"])
def team(request):
    """Threads that are started for each call, and those of PyTorch."""
    if request.param == "started":
        return 0
    torch = pytest.importorskip("torch")
    return _native.team_in(torch._C.__file__) or pytest.skip("this PyTorch has no OpenMP runtime that lends threads")


def table(*arrays):
    codes = bytes([CODES[x.dtype.name] for x in arrays])
    return Table([x.ctypes.data for x in arrays], [x.nbytes for x in arrays], codes)


def normal(n, dtype, seed=0, offset=0):
    """Return numbers whose address is ``offset`` bytes off a multiple of 64."""
    width = np.dtype(dtype).itemsize
    memory = np.zeros(n * width + 192, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    x = memory[start : start + n * width].view(dtype)
    x[...] = np.random.default_rng(seed).standard_normal(n).astype(dtype)
    return x


def exact_sum(x, ord):
    values = np.abs(np.asarray(x, np.float64))
    if ord == 2:
        return exact.square_sum(values)
    return values.max(initial=0.0) if ord == math.inf else math.fsum(values)  # fsum rounds once


@pytest.mark.parametrize("ord", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums(kernels, dtype, ord):
    width = np.dtype(DTYPES[dtype]).itemsize
    arrays = [normal(n, DTYPES[dtype], n, offset=i * width) for i, n in enumerate(LENGTHS)]
    each = kernels.sums(table(*arrays), ord, ONE)
    for x, got in zip(arrays, each, strict=True):
        narrow = ord == 2 and dtype in ADDED_IN_FLOAT32
        assert got == pytest.approx(float(exact_sum(x, ord)), rel=5 * 2.0**-24 if narrow else 1e-15)
    whole = max(each) if ord == math.inf else math.fsum(each)
    assert kernels.sum(table(*arrays), ord, ONE) == pytest.approx(whole, rel=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [1.0, 1 / 3, 0.1, 0.7])
def test_sums_of_equal_numbers(kernels, dtype, value):
    """All roundings go the same way here."""
    x = np.full(1 << 17, value, DTYPES[dtype])
    want = Fraction(float(x[0])) ** 2 * len(x)
    bound = 5 * 2.0**-24 if dtype in ADDED_IN_FLOAT32 else 1e-14
    assert abs(Fraction(kernels.sum(table(x), 2.0, ONE)) - want) <= want * Fraction(bound)


@pytest.mark.parametrize("large", [1.0, 1e-5, 1e-18, 1e-30, 1e19, 1e30, 3e38])
@pytest.mark.parametrize("small", [0.0, 1e-40, 1e-22, 1e-10])
def test_squares_of_bfloat16_that_float32_does_not_hold(kernels, large, small):
    x = np.full(10_000, small, ml_dtypes.bfloat16)
    x[::3] = large
    want = exact_sum(x, 2.0)
    assert kernels.sum(table(x), 2.0, ONE) == pytest.approx(float(want), rel=5 * 2.0**-24)


@pytest.mark.parametrize("dtype", DTYPES)
def test_addresses_that_are_no_multiple_of_the_width(kernels, dtype):
    """They need memory that NumPy would not calculate in: only the bytes are compared."""
    x = normal(77, DTYPES[dtype])
    memory = ctypes.create_string_buffer(x.nbytes + 1)
    there = ctypes.addressof(memory) + 1
    ctypes.memmove(there, x.ctypes.data, x.nbytes)
    odd = Table([there], [x.nbytes], bytes([CODES[dtype]]))
    assert kernels.sum(odd, 2.0, ONE) == kernels.sum(table(x), 2.0, ONE)
    kernels.scale(odd, (0.3,), (1.0,), ONE, odd)
    kernels.scale(table(x), (0.3,), (1.0,), ONE, table(x))
    assert ctypes.string_at(there, x.nbytes) == x.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("numel", [2047, 2048, 2063, 2064, 5000])
def test_wherever_an_array_begins_each_element_is_written_once(kernels, dtype, numel):
    """Long arrays are written from an aligned address on, what is before it apart. No byte beside is written."""
    x = normal(numel, DTYPES[dtype])
    want = np.empty_like(x)
    kernels.scale(table(x), (0.3,), (1.0,), ONE, table(want))
    code, nbytes = bytes([CODES[dtype]]), x.nbytes
    for start in range(66):
        memory = np.full(nbytes + 192, 7, np.uint8)
        there = memory[-memory.ctypes.data % 64 + start :][:nbytes]
        there[:] = x.view(np.uint8)
        run = Table([there.ctypes.data], [nbytes], code)
        kernels.scale(run, (0.3,), (1.0,), ONE, run)
        assert there.tobytes() == want.tobytes()
        there[:] = 7
        kernels.scale(table(x), (0.3,), (1.0,), ONE, run)
        assert there.tobytes() == want.tobytes()
        there[:] = 7
        assert np.all(memory == 7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of signalling NaNs, as NumPy converts them
def test_every_number_of_16_bits(kernels, dtype):
    """Subnormal ones, infinities and NaN too: the product in float32, rounded to 16 bits, and the square."""
    x = np.arange(1 << 16, dtype=np.uint16).view(DTYPES[dtype])
    for factor in (1.0, 0.3, 2.0**-14, 1e-30, 1e30, 0.0, math.inf, math.nan, *np.array([-1, 2**63 - 1]).view(float)):
        out = np.empty_like(x)
        kernels.scale(table(x), (factor,), (1.0,), ONE, table(out))
        with np.errstate(all="ignore"):
            want = (x.astype(np.float32) * np.float32(factor)).astype(x.dtype)
            known, got = ~np.isnan(want.astype(np.float32)), ~np.isnan(out.astype(np.float32))
        np.testing.assert_array_equal(got, known)
        np.testing.assert_array_equal(out[known].view(np.uint16), want[known].view(np.uint16))
    finite = x[np.isfinite(x.astype(np.float32))]
    squares = kernels.sums(table(*(finite[i : i + 1] for i in range(0, len(finite), 7))), 2.0, ONE)
    np.testing.assert_array_equal(squares, finite[::7].astype(np.float64) ** 2)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("place", ["largest", "least"])
def test_the_ends_of_the_range(kernels, dtype, place):
    kind = ml_dtypes.finfo(DTYPES[dtype])
    x = np.full(1000, kind.max if place == "largest" else kind.smallest_subnormal, DTYPES[dtype])
    assert kernels.sum(table(x), 2.0, ONE) == pytest.approx(1000 * float(x[0]) ** 2, rel=1e-14)
    kernels.scale(table(x), (1.0,), (1.0,), ONE, table(x))
    assert float(x[0]) == float(kind.max if place == "largest" else kind.smallest_subnormal)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("factor", [0.3, 1e-38, 1e-39, 1e-300, 1e37, 1e39])
def test_products_with_numbers_within_float32_and_beyond(kernels, dtype, factor):
    """Products of float32, and where float32 does not hold the number, are those of float64, rounded once."""
    x = normal(5000, DTYPES[dtype])
    x[:3] = math.inf, math.nan, -math.inf
    out = np.empty_like(x)
    kernels.scale(table(x), (factor,), (1.0,), ONE, table(out))
    kind = np.float32 if 2.0**-126 <= factor < 2.0**127 and dtype != "float32" else np.float64
    with np.errstate(all="ignore"):
        want = (x.astype(kind) * kind(factor)).astype(np.float32).astype(x.dtype)
    np.testing.assert_array_equal(out.astype(np.float32), want.astype(np.float32))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_products_are_rounded_once_without_an_optimiser_that_fuses_them(tmp_path):
    library = tmp_path / "kernels.so"
    flags = ["-std=gnu11", "-O0", "-ffp-contract=off", "-pthread", "-w", "-shared", "-fPIC", "-o", library]
    source = Path(_native.__file__).with_name("kernels.c")
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # sanitizers of tests
    subprocess.run(["cc", *flags, source, "-lm"], check=True, env=environment)
    x = normal(5000, np.float32)
    out = np.empty_like(x)
    Kernels(library).scale(table(x), (0.3,), (1.0,), ONE, table(out))
    np.testing.assert_array_equal(out, (x.astype(np.float64) * 0.3).astype(np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("ord", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("place", [0, 17, 36, 9000])
def test_nan_and_inf_show_in_the_sum(kernels, dtype, bad, ord, place):
    x = normal(37 if place < 37 else 9001 + place, DTYPES[dtype])
    x[place] = bad
    got = kernels.sum(table(x), ord, ONE)
    assert math.isnan(got) if math.isnan(bad) else got == math.inf


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_and_bounds_of_each_array(kernels, dtype):
    arrays = [normal(n, DTYPES[dtype], n) for n in LENGTHS]
    first, second = [1 / (i + 2) for i in range(len(arrays))], [0.5] * len(arrays)
    out = [np.empty_like(x) for x in arrays]
    kernels.scale(table(*arrays), first, second, ONE, table(*out))
    for x, a, b, got in zip(arrays, first, second, out, strict=True):
        want = x.astype(np.float64) * a * b
        want = want if dtype == "float64" else want.astype(np.float32)
        np.testing.assert_array_equal(got, want.astype(x.dtype))
    kernels.clamp(table(*arrays), [-0.5] * len(arrays), [0.25] * len(arrays), ONE, table(*out))
    for x, got in zip(arrays, out, strict=True):
        np.testing.assert_array_equal(got, np.clip(x, x.dtype.type(-0.5), x.dtype.type(0.25)))
    kernels.clear_(table(*out), ONE)
    assert not any(x.any() for x in out)


def test_bounds_keep_nan_and_take_in_infinities(kernels):
    x = np.array([math.nan, math.inf, -math.inf, -0.0, 1.0], np.float32)
    kernels.clamp(table(x), (-2.0,), (3.0,), ONE, table(x))
    np.testing.assert_array_equal(x, np.float32([math.nan, 3, -2, -0.0, 1]))
    assert np.signbit(x[3])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_with_any_number_of_threads(kernels, team, dtype):
    arrays = [normal(n, DTYPES[dtype], n) for n in (3_000_001, 5, 40_000, 1_234_567)]
    for order in (1.0, 2.0, math.inf):
        assert len({kernels.sum(table(*arrays), order, Threads(n, team)) for n in (1, 2, 3, 7, 64, 1000, 0, -1)}) == 1
    wanted = None
    for n in (1, 2, 7):
        out = [np.full_like(x, 9) for x in arrays]
        kernels.scale(table(*arrays), (0.1,), (1.0,), Threads(n, team), table(*out))
        got = [x.tobytes() for x in out]
        assert wanted in (None, got)
        wanted = got


def test_parts_of_arrays_are_measured_and_multiplied_by_numbers_of_their_own(kernels):
    arrays = [normal(n, np.float32, n) for n in (12, 70_000, 0, 5)]
    parts = [3, 7, 2, 0]
    whole = table(*arrays)
    rows = whole.cut(parts)
    assert len(rows.codes) == 12
    sums = kernels.sums(rows, 2.0, TWO)
    pieces = [piece for x, n in zip(arrays, parts, strict=True) if n for piece in x.reshape(n, -1)]
    for piece, got in zip(pieces, sums, strict=True):
        assert got == pytest.approx(float(exact_sum(piece, 2.0)), rel=1e-15)
    changed = np.arange(12) % 3 > 0
    factors = np.linspace(0.25, 3, 12)[changed]
    want = [x.copy() for x in pieces]
    for i, factor in zip(np.flatnonzero(changed), factors, strict=True):
        want[i] = (want[i].astype(np.float64) * factor).astype(np.float32)
    kernels.scale(rows.rows(changed), factors, np.ones(8), TWO, rows.rows(changed))
    for piece, right in zip(pieces, want, strict=True):
        np.testing.assert_array_equal(piece, right)


def test_many_small_arrays_among_large_ones_with_any_number_of_threads(kernels, team):
    """Small ones are written together and upwards, large ones downwards: each element once, by whichever thread."""
    lengths = [1000] * 900 + [1_000_000] + [0, 40_000, 3] * 50 + [2048] * 700
    x = np.ones(sum(lengths), np.float32)
    ends = np.cumsum(lengths)
    some = table(*(x[end - n : end] for n, end in zip(lengths, ends, strict=True)))
    for threads in (1, 2, 3, 7):
        x[...] = 1
        kernels.scale(some, np.arange(len(lengths)) + 2.0, np.ones(len(lengths)), Threads(threads, team), some)
        np.testing.assert_array_equal(x, np.repeat(np.arange(len(lengths)) + 2.0, lengths).astype(np.float32))


@pytest.fixture(scope="module")
def more_than_32_bits_count():
    """Zeros that nobody wrote take no memory, but to map them takes seconds."""
    x = np.zeros((1 << 31) + 5, np.float16)
    x[-1], x[1 << 31], x[7] = 2, 3, 6
    return x


def test_more_elements_than_32_bits_count(kernels, more_than_32_bits_count):
    x = more_than_32_bits_count
    assert kernels.sum(table(x), 2.0, TWO) == 49
    assert kernels.sum(table(x), math.inf, TWO) == 6


def test_whether_arrays_are_apart(kernels):
    x = np.zeros(100)
    assert kernels.apart(table(x[50:], x[:50], x[10:10], np.zeros(3)))
    assert not kernels.apart(table(x[50:], x[:51]))
    assert not kernels.apart(table(x[:2], x[50:], x[:1]))
    assert kernels.apart(table())


def test_two_threads_at_once(kernels, team):
    x, y = normal(2_000_000, np.float32, 1), normal(2_000_000, np.float32, 2)
    right = kernels.sum(table(x), 2.0, ONE), kernels.sum(table(y), 2.0, ONE)
    found = [set(), set()]

    def work(i, array):
        for _ in range(20):
            found[i].add(kernels.sum(table(array), 2.0, Threads(2, team)))

    workers = [threading.Thread(target=work, args=pair) for pair in enumerate((x, y))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [{right[0]}, {right[1]}]


def _sum_of(x, threads, pipe):
    pipe.send(_native.kernels().sum(table(x), 2.0, threads))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_child_process_after_a_call_with_threads(team):
    x, threads = normal(2_000_000, np.float32), Threads(2, team)
    right = _native.kernels().sum(table(x), 2.0, threads)
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_sum_of, args=(x, threads, there))
    child.start()
    assert here.recv() == right
    child.join()


def test_there_is_no_team_without_a_framework():
    assert _native.team_in(None) == 0


_FORKS = """
import importlib, os, signal, sys
import torch
if sys.argv[1]:
    importlib.import_module(sys.argv[1])
torch.ones(4_000_000).exp()  # starts PyTorch's threads
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(60)  # PyTorch's threads are not here: to wait for them would take for ever
import gradclip
grads = [torch.ones(1000, 10) for _ in range(100)]
print(float(gradclip.clip_by_global_norm(grads, 1.0)[1]), flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("imported", ["gradclip", "gradclip.backends.torch", ""])
def test_a_child_process_after_operations_of_pytorch(imported):
    """Whatever its parent imported of gradclip, and though nobody called it before the fork."""
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORKS, imported], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "1000.0\n"), done.stderr
