"""Which tensors and orders the kernels in Triton take; the kernels themselves run in ``interpreted.py``."""

import math
import struct

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed (it comes with PyTorch's builds for GPUs)")

from gradclip.backends.torch.ops import _launch
from gradclip.backends.torch.ops._triton_table import Table

REAL = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", REAL)
def test_real_tensors_without_gaps_are_taken(dtype):
    x = torch.zeros(4, 6, dtype=dtype)
    assert _launch.suits([x, x.T, x[1:], torch.zeros(0, dtype=dtype)])
    assert not _launch.suits([x, x[:, ::2]])
    assert not _launch.suits([x, torch.ones(1, dtype=dtype).expand(4)])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e5m2, torch.int32])
def test_other_dtypes_are_not_taken(dtype):
    assert not _launch.suits([torch.zeros(2), torch.zeros(2, dtype=dtype)])


def test_tensors_of_two_devices_are_not_taken_together():
    assert not _launch.suits([torch.zeros(2), torch.zeros(2, device="meta")])


@pytest.mark.parametrize("ord", [0.5, 1.0, 2.0, 3.0, 4.0, 4.5, math.inf])
def test_orders_whose_powers_leave_float64_are_not_taken(ord):
    """The largest float32 to the power of 4 is 1e154; of float64 leaves, only 1, 2 and inf have sums of their own."""
    assert _launch.has_order(Table([torch.ones(2)]), ord) == (ord <= 4 or ord == math.inf)
    assert _launch.has_order(Table([torch.ones(2, dtype=torch.float64)]), ord) == (ord in (1, 2, math.inf))


@pytest.mark.parametrize("number", [0.0, -0.0, 1.0, -1.5, 5e-324, 1.7e308, math.inf, -math.inf])
def test_numbers_are_passed_as_their_bits(number):
    back = struct.unpack("d", struct.pack("q", _launch._bits(number)))[0]
    assert (back, math.copysign(1, back)) == (number, math.copysign(1, number))


def test_numbers_of_which_one_is_a_tensor_are_stacked_in_float64():
    stacked = _launch._stacked((torch.tensor(0.1), 0.1, 3.0), torch.device("cpu"))
    assert stacked.dtype == torch.float64
    assert stacked.tolist() == [float(torch.tensor(0.1)), 0.1, 3.0]


def test_on_a_cpu_no_pairs_of_float32_are_added():
    assert not any(_launch._pairs(torch.device("cpu"), dtype) for dtype in REAL)
