"""Where leaves are in the host's memory: one table of those that the kernels read, and the positions of the others."""

import numpy as np
import pytest

from gradclip import _native
from gradclip._host_memory import code_of, runs_of


@pytest.mark.parametrize(
    ("name", "code", "is_complex"),
    [
        ("float64", "float64", False),
        ("float32", "float32", False),
        ("float16", "float16", False),
        ("bfloat16", "bfloat16", False),
        ("complex128", "float64", True),
        ("complex64", "float32", True),
    ],
)
def test_the_code_is_that_of_the_real_parts(name, code, is_complex):
    assert code_of(name) == (_native.CODES[code], is_complex)


@pytest.mark.parametrize("name", ["int32", "bool", "float8_e4m3fn", "float128", ""])
def test_dtypes_that_the_kernels_cannot_read_have_no_code(name):
    assert code_of(name) is None


def test_runs_and_others_keep_their_positions():
    single, pair = (code_of(name) for name in ("float32", "complex128"))
    runs = runs_of([(64, 8, single), None, (128, 32, pair), None])
    assert (list(runs.which), list(runs.others)) == ([0, 2], [1, 3])
    assert (list(runs.table.addresses), list(runs.table.nbytes)) == ([64, 128], [8, 32])
    assert runs.table.codes == bytes([_native.CODES["float32"], _native.CODES["float64"]])
    assert runs.is_complex


def test_no_leaves_and_no_runs():
    for found, others in (([], []), ([None, None], [0, 1])):
        runs = runs_of(found)
        assert (list(runs.which), list(runs.others), runs.is_complex) == ([], others, False)
        assert runs.table.codes == b""


@pytest.mark.skipif(_native.kernels() is None, reason="the kernels in C were not built, or are switched off")
def test_the_kernels_read_what_the_table_says():
    arrays = [np.asarray([3.0, -4.0], np.float32), np.asarray([12.0])]
    found = [(x.ctypes.data, x.nbytes, code_of(x.dtype.name)) for x in arrays]
    runs = runs_of([found[0], None, found[1]])
    assert _native.kernels().sum(runs.table, 2.0, _native.Threads(1)) == 169.0
