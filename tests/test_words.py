"""Articles and short values in messages."""

import numpy as np
import pytest

from gradclip._words import a, kind, short


@pytest.mark.parametrize(
    ("noun", "right"),
    [("ndarray", "an ndarray"), ("int", "an int"), ("list", "a list"), ("OrderedDict", "an OrderedDict"),
     ("ArrayImpl", "an ArrayImpl"), ("uint8", "a uint8"), ("object", "an object"), ("NDArray", "an NDArray"),
     ("UninitializedParameter", "an UninitializedParameter"), ("mpf", "an mpf"), ("method", "a method")],
)  # fmt: skip
def test_articles(noun, right):
    assert a(noun) == right


def test_kinds():
    assert kind(None) == "None"
    assert kind(3) == "an int"
    assert kind(np.ones(2)) == "a numpy.ndarray"


def test_long_values_are_cut():
    assert short([1.0]) == "[1.0]"
    assert len(short("x" * 1000)) < 70
    assert len(short({"weight": list(range(1000))})) < 200
