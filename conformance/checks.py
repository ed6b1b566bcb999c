"""Assertions. Each compares with an exact answer, within the bound that the contract gives."""

import math
from collections.abc import Sequence

import numpy as np

from gradclip.conformance.oracles import (
    EXACT,
    Real,
    Values,
    component,
    components,
    exact,
    format_of,
    norm,
    norm_dtype,
    round_to,
    scaled,
    ulp,
)

NORM_ERROR = {"float32": 1e-6, "float64": 1e-14}
"""Relative error of a norm, by its dtype (clause 2)."""

EPS_OF_NORM = 3
"""How far the norm of clipped leaves may be from ``max_norm`` (clause 5), in eps of float32, or of float64 if all
leaves have double precision. The rounding of each element is allowed in addition."""

ULPS = {"float16": 0.51, "bfloat16": 0.51, "float32": 4.0, "float64": 4.0}
"""The largest distance between a clipped element and its exact value, in units in the last place (clause 5).

Half precision is computed in a wider dtype and rounded once. In float32 and float64, the norm, the coefficient and the
product are each rounded.
"""

POWERS = 4
"""In orders other than 1, 2 and inf, `ULPS` is multiplied by this, because powers and roots are less exact."""

ULPS_OF_ONE_COEFFICIENT = {"float16": 0.51, "bfloat16": 0.51, "float32": 2.0, "float64": 2.0}
"""As `ULPS`, but for the coefficient that fits all elements best: it measures whether the direction is kept."""


def assert_norm(got: float, right: Real, dtype: str) -> None:
    """Assert that a norm has at most the error of clause 2, or is inf if its dtype cannot represent the right norm."""
    if math.isinf(round_to(right, dtype)):
        assert got == math.inf, f"norm {got!r}, but it is not representable: inf was expected"
        return
    assert math.isfinite(got), f"norm {got!r}, exactly {EXACT.nstr(right, 20)}"
    allowed = max(right * exact(NORM_ERROR[dtype]), ulp(right, dtype) / 2)
    error = abs(exact(got) - right)
    assert error <= allowed, (
        f"norm {got!r}, exactly {EXACT.nstr(right, 20)}: relative error {EXACT.nstr(error / (right or 1), 3)}"
    )


def assert_close(got: Values, right: Sequence[Real], dtype: str, ord: float = 2.0) -> None:
    """Assert that each component of a leaf is within some units in the last place of its exact value."""
    allowed = ULPS[component(dtype)]
    allowed *= POWERS if allowed > 1 and ord not in (1, 2, math.inf) else 1
    flat = components(got).tolist()
    assert len(flat) == len(right)
    for i, (value, wanted) in enumerate(zip(flat, right, strict=True)):
        nearest = round_to(wanted, dtype)
        if value == nearest:
            continue
        assert math.isfinite(value), f"element {i} is {value!r}, exactly {EXACT.nstr(wanted, 20)}"
        off = abs(exact(value) - wanted) / ulp(wanted, dtype)
        assert off <= allowed, (
            f"element {i} is {value!r}, exactly {EXACT.nstr(wanted, 20)}: {EXACT.nstr(off, 4)} units in the last place "
            f"of {dtype} off, {allowed} allowed"
        )


def assert_times(got: Values, before: Values, factor: Real, dtype: str, ord: float = 2.0) -> None:
    """Assert that a leaf is ``before`` times a number that was computed from a norm of order ``ord``."""
    assert got.shape == before.shape
    assert_close(got, scaled(before, factor), dtype, ord)


def assert_norm_after(after: Sequence[Values], dtypes: Sequence[str], max_norm: float, ord: float = 2.0) -> None:
    """Assert that clipped leaves have the norm ``max_norm`` to their dtypes' rounding (clause 5); for orders >= 1."""
    halves = [
        np.array([float(ulp(exact(v), dtype)) / 2 for v in components(x).tolist()])
        for x, dtype in zip(after, dtypes, strict=True)
    ]
    wide = max(format_of(dtype if component(dtype) == "float64" else "float32").eps for dtype in dtypes)
    allowed = norm(halves, ord) + exact(max_norm) * exact(EPS_OF_NORM * wide)
    off = abs(norm(after, ord) - exact(max_norm))
    assert off <= allowed, (
        f"the norm after clipping is off {max_norm!r} by {EXACT.nstr(off, 3)}, {float(allowed):.3g} allowed"
    )


def assert_one_coefficient(after: Sequence[Values], before: Sequence[Values], dtypes: Sequence[str]) -> None:
    """Assert that one number exists by which all leaves were multiplied, to rounding (clause 5)."""
    low, high = EXACT.mpf(0), EXACT.inf
    for new, old, dtype in zip(after, before, dtypes, strict=True):
        allowed = exact(ULPS_OF_ONE_COEFFICIENT[component(dtype)])
        for y, x in zip(components(new).tolist(), components(old).tolist(), strict=True):
            if x == 0:
                assert y == 0
                continue
            y, x = exact(y) * (1 if x > 0 else -1), abs(exact(x))
            slack = ulp(y, dtype) * allowed
            low, high = max(low, (y - slack) / x), min(high, (y + slack) / x)
    assert low <= high, f"no one coefficient fits: at least {EXACT.nstr(low, 12)}, at most {EXACT.nstr(high, 12)}"


def assert_same_bits(after: Values, before: Values) -> None:
    """Assert that values are equal, including NaN and the signs of zeros."""
    assert after.shape == before.shape
    one, other = np.ascontiguousarray(after), np.ascontiguousarray(before)
    same = (one == other) | ((one != one) & (other != other))
    signs = np.signbit(components(one)) == np.signbit(components(other))
    nan = np.isnan(components(one))
    assert np.all(same), f"changed where nothing had to: {one[~same][:4]} instead of {other[~same][:4]}"
    assert np.all(signs | nan), "the sign of a zero changed"


def assert_clipped(
    after: Sequence[Values], before: Sequence[Values], dtypes: Sequence[str], max_norm: float, ord: float = 2.0
) -> None:
    """Assert all of clause 5: the norm after clipping, one coefficient for all leaves, and its value."""
    size = norm(before, ord)
    assert size > exact(max_norm), "the case is one where nothing is clipped"
    for new, old, dtype in zip(after, before, dtypes, strict=True):
        assert_times(new, old, exact(max_norm) / size, dtype, ord)
    assert_one_coefficient(after, before, dtypes)
    if max_norm and ord >= 1:
        assert_norm_after(after, dtypes, max_norm, ord)


def assert_norm_of(got: float, leaves: Sequence[Values], dtypes: Sequence[str], ord: float = 2.0) -> None:
    """Assert that a norm is that of these leaves."""
    assert_norm(got, norm(leaves, ord), norm_dtype(dtypes))
