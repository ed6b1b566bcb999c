"""Before the clauses: the targets have the traits that the suite relies on."""

import numpy as np
import pytest

from gradclip.conformance.checks import assert_same_bits
from gradclip.conformance.oracles import format_of
from gradclip.conformance.targets import Target
from gradclip.conformance.values import normal


def test_missing(missing: dict[str, str]) -> None:
    """Namespaces of the default list that are not here are told, not passed over in silence."""
    if missing:
        pytest.skip("not here: " + "; ".join(f"{name} ({why})" for name, why in missing.items()))


def test_round_trip(target: Target, dtype: str) -> None:
    """Values go into an array and come out of it exactly."""
    fmt = format_of(dtype)
    for values in (normal((3, 4), dtype), np.array([0.0, -0.0, fmt.largest, fmt.tiny, 1 + fmt.eps, np.inf, np.nan])):
        x = target.make(values.astype(np.complex128) if dtype.startswith("complex") else values, dtype)
        assert target.dtype(x) == dtype
        assert x.shape == values.shape
        assert_same_bits(target.read(x), values.astype(target.read(x).dtype))


def test_float32(target: Target) -> None:
    """Every target has float32, without which there is nothing to test."""
    assert "float32" in target.dtypes
