"""Which objects are numbers, and what the messages advise for the others."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from gradclip._number import as_number, known_value


@pytest.mark.parametrize(
    "value",
    [1.5, Fraction(3, 2), Decimal("1.5"), np.float16(1.5), np.float64(1.5), np.asarray(1.5), np.asarray([[1.5]])],
)
def test_real_numbers_become_floats(value):
    number = as_number(value, "max_norm", "None")
    assert type(number) is float
    assert number == known_value(number) == 1.5


@pytest.mark.parametrize("value", [2, np.int8(2), np.uint64(2), np.asarray([2], np.int32)])
def test_integers_become_floats(value):
    assert as_number(value, "max_norm", "None") == 2.0


@pytest.mark.parametrize(("value", "right"), [(10**400, math.inf), (-(10**400), -math.inf)])
def test_integers_out_of_the_range_of_float64_are_infinite(value, right):
    assert as_number(value, "max_norm", "None") == right


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "max_norm=None is a NoneType, expected a real number or a 0-d array; pass a float, or a policy"),
        (True, "max_norm=True is a bool, expected a real number or a 0-d array; pass a float, or a policy"),
        (1j, "max_norm=1j is a complex, expected a real number or a 0-d array; pass a float, or a policy"),
        ("one", "max_norm='one' is a str, expected a real number or a 0-d array; pass a float, or a policy"),
        ("1.5", "pass max_norm=float('1.5')"),
        ("1e-3", "pass max_norm=float('1e-3') (YAML reads 1e-3 as a string, 1.0e-3 as a number)"),
        (np.ones(2), "max_norm has shape (2,), expected a number or a 0-d array"),
        (np.asarray(1j), "max_norm has dtype complex128, expected a real number; pass a float"),
        (np.asarray(True), "max_norm has dtype bool, expected a real number; pass a float"),
    ],
)
def test_what_is_no_real_number_is_refused(value, message):
    with pytest.raises(TypeError) as error:
        as_number(value, "max_norm", "a policy")
    assert message in str(error.value)


def test_an_array_whose_derivatives_are_recorded_is_not_read():
    torch = pytest.importorskip("torch")
    value = torch.tensor([1.5], requires_grad=True)
    number = as_number(value, "max_norm", "None")
    assert number.shape == ()
    assert number.requires_grad
    assert known_value(number) == 1.5
