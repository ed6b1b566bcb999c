"""Norms of arrays in the host's memory by the kernels: which arrays they read, and when their sums can be trusted."""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from gradclip import _namespace as ns
from gradclip import _native
from gradclip._memory import in_byte_order
from gradclip._native import Kernels, Table
from gradclip._partial import NormPartial

NDArray: TypeAlias = np.ndarray[Any, Any]

_LEAST, _PART = 2.0**-1022, 2.0**-58
"""(smallest normal number, relative error we accept): a sum of n squares is trusted if n · first ≤ second · sum."""

_FURTHEST = 1021
"""The largest exponent of a power of two whose reciprocal is a normal number too."""


@cache
def code_of(name: str) -> tuple[int, int] | None:
    """Return what the kernels call a dtype, and how many real numbers an element has; None if they cannot read it."""
    real = {"complex64": "float32", "complex128": "float64", "complex32": "float16"}.get(name)
    code = _native.CODES.get(real or name)
    return None if code is None else (code, 2 if real else 1)


def code_for(code: tuple[int, int] | None, ord: float) -> tuple[int, int] | None:
    """Return the code of a dtype if there is a sum for an order of norms: of complex numbers, that of squares only."""
    return code if code is not None and (ord == 2 or (code[1] == 1 and _native.has_order(ord))) else None


class Runs:
    """Runs of memory of several dtypes, collected one by one."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[list[int], list[int]]] = {}

    def add(self, code: int, address: int, numel: int) -> None:
        """Add a run of real numbers."""
        addresses, numels = self._found.setdefault(code, ([], []))
        addresses.append(address)
        numels.append(numel)

    def tables(self) -> list[Table]:
        """Return one table for each dtype."""
        return [Table(code, *runs) for code, runs in self._found.items()]


def tables_of(arrays: Iterable[NDArray], ord: float = 2.0) -> tuple[list[Table], list[NDArray]]:
    """Return tables of those NumPy arrays that the kernels can read for an order of norms, and the others.

    They are one run of memory each, in any order of axes.
    """
    runs, others = Runs(), []
    for x in arrays:
        code = code_for(_code_of_dtype(x.dtype), ord)
        flat = x if x.flags.c_contiguous or code is None else in_byte_order(x)
        if code is None or not flat.flags.c_contiguous:
            others.append(x)
        else:
            runs.add(code[0], flat.__array_interface__["data"][0], flat.size * code[1])
    return runs.tables(), others


@cache
def _code_of_dtype(dtype: np.dtype[Any]) -> tuple[int, int] | None:
    return code_of(ns.dtype_name(dtype)) if dtype.isnative else None


def partial_of(kernels: Kernels, tables: Sequence[Table], ord: float, threads: int, dtype: Any) -> NormPartial:
    """Return the partial norm of all arrays in tables, at least one, as NumPy's scalars; ``dtype`` is the norm's."""
    parts = [_scale_and_total(kernels, table, ord, threads) for table in tables]
    merged: NormPartial | None = None
    for scale, total in parts:
        part = NormPartial(np.float64(scale), np.float64(total), ord, dtype)
        merged = part if merged is None else merged.merge(part)
    assert merged is not None  # there are tables
    return merged


def norm_of(kernels: Kernels, table: Table, threads: int) -> float | None:
    """Return the Euclidean norm of all arrays in a table, or None if a plain sum of squares cannot be trusted."""
    total = kernels.sum(table, 2.0, threads)
    return math.sqrt(total) if _is_trusted(total, 2.0, table) else None


def _scale_and_total(kernels: Kernels, table: Table, ord: float, threads: int) -> tuple[float, float]:
    """Return the two numbers of a partial norm: by one read, or by three where float64 does not hold the powers."""
    total = kernels.sum(table, ord, threads)
    if _is_trusted(total, ord, table):
        return 1.0, total
    peak = kernels.sum(table, math.inf, threads)
    if not 0 < peak < math.inf:  # NaN and inf stay what they are
        return 1.0, peak
    exponent = max(-_FURTHEST, min(_FURTHEST, math.frexp(peak)[1]))
    scale = math.ldexp(1.0, exponent)
    return scale, kernels.sum(table, ord, threads, 1.0 / scale)


def _is_trusted(total: float, ord: float, table: Table) -> bool:
    """Whether no power that matters has left the range of float64; those of narrower dtypes cannot."""
    if table.code != _native.CODES["float64"] or ord == math.inf:
        return True
    return math.isfinite(total) and (ord == 1 or table.numel * _LEAST <= _PART * total)
