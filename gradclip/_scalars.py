"""The few functions of a namespace that norms and coefficients need, for NumPy's own scalars.

A norm on the host is one number. NumPy's scalars calculate with it 5 to 10 times faster than 0-d arrays do, and follow
the same rules (0/0 is NaN, overflow is inf); what they lack is a namespace of their own.
"""

from typing import Any

import numpy as np

from gradclip._types import Array

float32, float64, bool = np.float32, np.float64, np.bool  # noqa: A001  # the name that the standard gives it
sqrt, isfinite, asarray = np.sqrt, np.isfinite, np.asarray


def where(condition: Array, x: Array, y: Array) -> Array:
    """Return ``x`` if the condition holds, else ``y``."""
    return x if condition else y


def full_like(x: Array, value: Any, *, dtype: Any = None) -> Array:
    """Return a scalar of the type of ``x``."""
    return (dtype or type(x))(value)


def zeros_like(x: Array, *, dtype: Any = None) -> Array:
    """Return zero as a scalar of the type of ``x``, or False."""
    return (dtype or type(x))(0)


def ones_like(x: Array, *, dtype: Any = None) -> Array:
    """Return one as a scalar of the type of ``x``."""
    return (dtype or type(x))(1)


def astype(x: Array, dtype: Any) -> Array:
    """Return a scalar of another type."""
    return np.asarray(x, dtype=dtype)[()]
