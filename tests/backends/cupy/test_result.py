"""What the kernel ``finish`` writes is read at the offsets of ``struct Result``."""

import struct

import numpy as np
import pytest

from gradclip._decision import Rule
from gradclip.backends.cupy._result import PARTIAL_BYTES, RESULT_BYTES, read_result

LAYOUT = "=5df??2x"  # scale, total, norm, divisor, factor; the norm in float32; changed, zeroed


def result_of(rule, dtype, zeroed=False):
    memory = np.frombuffer(struct.pack(LAYOUT, 2.0, 9.0, 6.0, 2.0, 0.25, 6.5, True, zeroed), np.uint8)
    return read_result(memory, lambda offset, kind: np.ndarray((), kind, buffer=memory, offset=offset), dtype, rule)


def test_the_struct_has_the_size_that_is_allocated():
    assert struct.calcsize(LAYOUT) == RESULT_BYTES
    assert struct.calcsize("=2d") == PARTIAL_BYTES


@pytest.mark.parametrize(("dtype", "norm"), [(np.float64, 6.0), (np.float32, 6.5)])
def test_each_number_is_at_its_offset(dtype, norm):
    result = result_of(Rule(1.0), dtype)
    decision, partial = result.decision, result.partial
    assert (float(decision.norm), decision.norm.dtype) == (norm, dtype)
    assert (float(partial.scale), float(partial.total), partial.ord) == (2.0, 9.0, 2.0)
    assert (float(decision.coefficient.number), bool(decision.clipped)) == (0.125, True)
    assert decision.coefficient.zeroed is None
    assert bool(decision.finite)


@pytest.mark.parametrize("zeroed", [False, True])
def test_the_flag_for_zeros_is_read_if_the_rule_asks_for_it(zeroed):
    c = result_of(Rule(1.0, nonfinite="zero"), np.float32, zeroed).decision.coefficient
    assert bool(c.zeroed) is zeroed
    assert float(c.number) == (0 if zeroed else 0.125)
