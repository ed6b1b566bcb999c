"""``Ops`` for tensors in the host's memory: the kernels in C read and write them where they lie.

Where there are no kernels, PyTorch's own operations do the same, some elements at a time (``TorchOps``). The norm is a
NumPy scalar, with which a coefficient costs some microseconds less than with 0-d tensors.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradclip import _namespace as ns
from gradclip import _native
from gradclip._coefficient import Coefficient
from gradclip._native import Table
from gradclip._numpy import multipliers
from gradclip._partial import NormPartial, merge_elements
from gradclip._tables import Runs, code_for, code_of, partial_of
from gradclip.backends.torch._ops import TorchOps, in_memory_order

_CPU = {torch.device("cpu")}
_TYPES = {Tensor, torch.nn.Parameter}
_DTYPE = attrgetter("dtype")


class HostOps(TorchOps):
    """The operations of ``Ops`` for CPU tensors."""

    def partial(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end, as NumPy scalars."""
        kernels = _native.kernels()
        tables, others = tables_of(leaves, ord) if kernels else ([], leaves)
        if not kernels or not tables:
            return self._plain(leaves, ord)
        partial = partial_of(kernels, tables, ord, torch.get_num_threads(), _norm_dtype(leaves))
        return partial.merge(self._plain(others, ord)) if others else partial

    def partials(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return one partial norm for each leaf, as tensors."""
        if not _native.kernels():
            return super().partials(leaves, ord)
        parts = [self.partial([x], ord) for x in leaves]
        if not all(isinstance(part.total, np.generic) for part in parts):  # traced: then all are taken so
            return super().partials(leaves, ord)
        double = any(ns.is_double(x.dtype) for x in leaves)
        numbers = [[float(part.scale) for part in parts], [float(part.total) for part in parts]]
        scale, total = (torch.tensor(values, dtype=torch.float64, device="cpu") for values in numbers)
        return NormPartial(scale, total, ord, torch.float64 if double else torch.float32)

    def scale_(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place, if that changes anything."""
        for c, group in _groups(leaves, coefficients):
            known = _known(c)
            numbers = None if known is None else multipliers(known)
            if numbers == (1.0, 1.0):
                continue
            tables, others = tables_of(group) if numbers and _native.kernels() else ([], group)
            for table in tables:
                assert numbers  # else there were no tables
                multiply_(table, *numbers)
            if tables:
                written(group)
            if others:
                super().scale_(others, [c] * len(others))

    def _plain(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return the partial norm by PyTorch's operations, as NumPy scalars if there are values."""
        partial = merge_elements(super().partials(leaves, ord))
        if (scalars := _scalars(partial.scale, partial.total)) is None:
            return partial
        scale, total = scalars
        return NormPartial(scale, total, ord, _norm_dtype(leaves))


def tables_of(leaves: Sequence[Tensor], ord: float = 2.0) -> tuple[list[Table], list[Tensor]]:
    """Return tables of those CPU tensors that the kernels can read for an order of norms, and the others.

    They are one run of memory each, in any order of axes. A tensor that conjugates or negates what is in memory has the
    same norm, and is multiplied alike.
    """
    try:
        table = table_of(leaves, ord)
        if table is not None:
            return [table], []
        runs, others = Runs(), []
        for x in leaves:
            code, flat = code_for(_code_of(x.dtype), ord), in_memory_order(x)
            if code is None or flat is None:
                others.append(x)
            else:
                runs.add(code[0], flat.data_ptr(), flat.numel() * code[1])
    except RuntimeError:  # traced by a transform of torch.func: there are no addresses
        return [], list(leaves)
    return runs.tables(), others


def table_of(leaves: Sequence[Tensor], ord: float = 2.0) -> Table | None:
    """Return one table of CPU tensors, if they have one dtype and each is one run of memory; in few calls."""
    dtypes = set(map(_DTYPE, leaves))
    code = code_for(_code_of(dtypes.pop()), ord) if len(dtypes) == 1 else None
    if code is None or not all(map(Tensor.is_contiguous, leaves)):
        return None
    numels = map(Tensor.numel, leaves)
    return Table(code[0], map(Tensor.data_ptr, leaves), numels if code[1] == 1 else [2 * n for n in numels])


def multiply_(table: Table, first: float, second: float = 1.0) -> None:
    """Multiply all elements of a table by two numbers, one after the other, and round once."""
    kernels = _native.kernels()
    assert kernels  # there is a table
    kernels.scale_(table, first, second, torch.get_num_threads())


def written(tensors: Sequence[Tensor]) -> None:
    """Tell autograd that tensors were written to, as PyTorch's own operations in place do."""
    torch.autograd.graph.increment_version([x for x in tensors if not x.is_inference()])


@cache
def _code_of(dtype: torch.dtype) -> tuple[int, int] | None:
    return code_of(ns.dtype_name(dtype))


def on_host(leaves: Sequence[Tensor]) -> bool:
    """Whether all leaves are plain tensors, of no subclass, in the host's memory, and not traced by a compiler."""
    plain = {type(x) for x in leaves} <= _TYPES and {x.device for x in leaves} <= _CPU
    return plain and not torch.compiler.is_compiling()


def distinct(coefficients: Sequence[Coefficient]) -> Sequence[Coefficient]:
    """Return each coefficient once: mostly there is one for all leaves."""
    if len(set(map(id, coefficients))) == 1:
        return coefficients[:1]
    return list({id(c): c for c in coefficients}.values())


def _groups(
    leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]
) -> Iterable[tuple[Coefficient, list[Tensor]]]:
    """Return leaves of one coefficient and one dtype together."""
    if len({x.dtype for x in leaves}) == 1 and len(distinct(coefficients)) == 1:
        return [(coefficients[0], list(leaves))]
    groups: dict[tuple[int, torch.dtype], tuple[Coefficient, list[Tensor]]] = {}
    for x, c in zip(leaves, coefficients, strict=True):
        groups.setdefault((id(c), x.dtype), (c, []))[1].append(x)
    return groups.values()


def _known(c: Coefficient) -> Coefficient | None:
    """Return a coefficient as NumPy scalars, or None if its values are not known or not one for a whole leaf."""
    if isinstance(c.factor, np.generic):
        return c
    if c.factor.ndim or (numbers := _scalars(c.divisor, c.factor, c.changed)) is None:
        return None
    divisor, factor, changed = numbers
    return Coefficient(divisor, factor, changed, None if c.zeroed is None else bool(c.zeroed))


def _scalars(*values: Tensor) -> list[Any] | None:
    """Return 0-d tensors as NumPy scalars, or None if they have no values yet, under the transforms of torch.func."""
    try:
        return [value.numpy()[()] for value in values]
    except RuntimeError:
        return None


def _norm_dtype(leaves: Sequence[Tensor]) -> type[np.float32 | np.float64]:
    return np.float64 if any(ns.is_double(dtype) for dtype in {x.dtype for x in leaves}) else np.float32
