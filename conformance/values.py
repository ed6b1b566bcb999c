"""Values of leaves for tests. Their dtype represents them exactly. Except for `spread`, all machines get the same."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradclip.conformance.oracles import Values, component, format_of

SHAPES = ((3,), (2, 2), (0,), (4, 1, 2))
"""Shapes of ordinary leaves, an empty one among them."""

ORDERS = (0.5, 1.0, 1.5, 2.0, 3.0, float("inf"))


def is_complex(dtype: str) -> bool:
    """Whether a dtype is complex."""
    return dtype.startswith("complex")


def representable(values: Any, dtype: str) -> Values:
    """Return the nearest values of a dtype (subnormal numbers excepted for bfloat16), as float64 or complex128."""
    values = np.asarray(values)
    if is_complex(dtype):
        values = values.astype(np.complex128, copy=False)
        return np.asarray(_rounded(values.real, component(dtype)) + 1j * _rounded(values.imag, component(dtype)))
    return np.asarray(_rounded(values.astype(np.float64, copy=False), dtype))


def _rounded(values: NDArray[np.float64], dtype: str) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):
        if dtype != "bfloat16":
            return values.astype(dtype).astype(np.float64)
        bits: NDArray[Any] = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        rounded = bits.astype(np.uint32).view(np.float32).astype(np.float64).reshape(values.shape)
        return np.where(np.isfinite(values), rounded, values)


def normal(shape: tuple[int, ...] | int, dtype: str, seed: int = 0, size: float = 1.0) -> Values:
    """Return normally distributed values of standard deviation ``size``."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    if is_complex(dtype):
        values = values + 1j * rng.standard_normal(shape)
    values *= size  # in place: there may be millions
    return representable(values, dtype)


def spread(shape: tuple[int, ...] | int, dtype: str, seed: int = 0) -> Values:
    """Return normal numbers whose magnitudes differ by many orders of magnitude; the largest is about 1."""
    rng = np.random.default_rng(seed)
    lowest = max(-60.0, format_of(dtype).emin + 1.0)
    values = np.asarray(np.exp2(rng.uniform(lowest, 0, shape)) * rng.choice([-1.0, 1.0], shape))
    if is_complex(dtype):
        values = values + 1j * np.exp2(rng.uniform(lowest, 0, shape))
    return representable(values, dtype)


def portable_spread(shape: tuple[int, ...] | int, dtype: str, seed: int = 0) -> Values:
    """Return values like those of `spread`, with the same bits on every machine; np.exp2 depends on the processor."""
    rng = np.random.default_rng(seed)
    lowest = max(-60, format_of(dtype).emin + 1)

    def magnitudes() -> Any:
        return np.ldexp(rng.uniform(0.5, 1.0, shape), rng.integers(lowest, 1, shape))

    values = np.asarray(magnitudes() * rng.choice([-1.0, 1.0], shape))
    if is_complex(dtype):
        values = values + 1j * magnitudes()
    return representable(values, dtype)


def model(dtypes: str | Sequence[str], seed: int = 0, size: float = 1.0) -> list[tuple[Values, str]]:
    """Return values for one leaf of each of `SHAPES`, with its dtype; the dtypes alternate."""
    dtypes = [dtypes] if isinstance(dtypes, str) else dtypes
    turns = [dtypes[i % len(dtypes)] for i in range(len(SHAPES))]
    return [
        (normal(shape, dtype, seed + i, size), dtype)
        for i, (shape, dtype) in enumerate(zip(SHAPES, turns, strict=True))
    ]
