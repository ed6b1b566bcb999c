"""The oracles against Python's own exact arithmetic, and against the casts of NumPy."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradclip.conformance import oracles
from gradclip.conformance.checks import assert_norm, assert_one_coefficient, assert_same_bits
from gradclip.conformance.oracles import EXACT, FORMATS, exact, round_to, ulp
from gradclip.conformance.values import representable

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(finite, max_size=12))
def test_sum_of_squares(values: list[float]) -> None:
    right = sum((Fraction(v) ** 2 for v in values), Fraction(0))
    assert oracles.sum_of_squares(np.array(values, np.float64)) == right


def test_sum_of_squares_of_many() -> None:
    few = np.random.default_rng(0).standard_normal(2000)
    assert oracles.sum_of_squares(np.tile(few, 150)) == 150 * sum(Fraction(v) ** 2 for v in few.tolist())


@pytest.mark.parametrize(("ord", "right"), [(1.0, 7.0), (2.0, 5.0), (3.0, 91 ** (1 / 3)), (math.inf, 4.0)])
def test_norm(ord: float, right: float) -> None:
    assert float(oracles.norm([np.array([3.0]), np.zeros(0), np.array([[-4.0]])], ord)) == pytest.approx(right)
    assert float(oracles.norm([np.array([3j]), np.array([-4.0 + 0j])], ord)) == pytest.approx(right)
    assert oracles.norm([], ord) == 0


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@settings(max_examples=300)
@given(value=st.one_of(finite, st.floats(-1e5, 1e5), st.floats(-1e-6, 1e-6)))
def test_round_to(dtype: str, value: float) -> None:
    with np.errstate(all="ignore"):
        assert round_to(exact(value), dtype) == float(np.dtype(dtype).type(value))


@settings(max_examples=300)
@given(value=finite)
def test_round_to_bfloat16(value: float) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    value = float(np.float32(value)) if abs(value) < 3.4e38 else 1.0  # ml_dtypes rounds to float32 first
    assert round_to(exact(value), "bfloat16") == float(np.float32(value).astype(ml_dtypes.bfloat16))
    assert float(representable([value], "bfloat16")[0]) == round_to(exact(value), "bfloat16")


@pytest.mark.parametrize("dtype", FORMATS)
def test_formats(dtype: str) -> None:
    fmt = FORMATS[dtype]
    assert round_to(exact(fmt.largest), dtype) == fmt.largest
    assert round_to(exact(fmt.largest) * 2, dtype) == math.inf
    assert round_to(exact(fmt.largest) * -2, dtype) == -math.inf
    assert ulp(exact(1), dtype) == fmt.eps
    assert ulp(exact(fmt.tiny) / 8, dtype) == ulp(EXACT.mpf(0), dtype) == fmt.tiny * fmt.eps
    assert round_to(exact(1 + fmt.eps / 2) if dtype != "float64" else exact(1), dtype) == 1


def test_units_are_those_of_optax() -> None:
    transforms = pytest.importorskip("optax.transforms")
    for shape in ((4,), (3, 2), (1, 5), (2, 3, 2), (2, 2, 1, 2), (1, 2, 2, 2, 2)):
        values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        theirs = np.broadcast_to(np.asarray(transforms.unitwise_norm(values)), shape)
        for key, unit in oracles.units(values.astype(float), oracles.unit_axes(shape)):
            assert np.allclose(theirs[key], float(oracles.norm([unit])), rtol=1e-5)


def test_checks_can_fail() -> None:
    with pytest.raises(AssertionError):
        assert_norm(1 + 2e-6, exact(1), "float32")
    with pytest.raises(AssertionError):
        assert_norm(3e38, exact(4e38), "float32")
    with pytest.raises(AssertionError):
        assert_same_bits(np.array([0.0]), np.array([-0.0]))
    before = np.array([3.0, 4.0])
    with pytest.raises(AssertionError):
        assert_one_coefficient([before * [0.5, 0.500001]], [before], ["float32"])
    assert_one_coefficient([before * 0.5], [before], ["float32"])
