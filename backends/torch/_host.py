"""``Ops`` for tensors in the host's memory: NumPy reads them where they lie, and what needs no change is not written.

``np.vecdot`` on short blocks adds squares as fast as memory delivers them, and more exactly than PyTorch's own sums;
the norm is a NumPy scalar, with which a coefficient costs some microseconds less than with 0-d tensors.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gradclip import _namespace as ns
from gradclip._coefficient import Coefficient
from gradclip._numpy import plain_factor
from gradclip._partial import NormPartial
from gradclip.backends.torch._ops import STORED, TorchOps, is_lazy
from gradclip.backends.torch._squares import parts_of, sizes_of, squares_of

NDArray: TypeAlias = np.ndarray[Any, Any]

_MANY, _TINY = 64, 1 << 10
"""Leaves, and elements of each, from and up to which the time of a call is all that multiplying takes."""

_CPU = {torch.device("cpu")}
_UNSCALED = {torch.float32, torch.bfloat16, torch.float16}
_DOUBLES = {torch.float64, torch.complex128}
_TYPES = {Tensor, torch.nn.Parameter}


class HostOps(TorchOps):
    """The operations of ``Ops`` for CPU tensors."""

    def partial(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end, as NumPy scalars."""
        sizes = sizes_of(leaves)
        squares = squares_of(parts_of(leaves, sizes), sum(sizes)) if ord == 2 else None
        if squares is not None and squares.right():
            return NormPartial(np.float64(1.0), np.float64(squares.total), 2.0, _norm_dtype(leaves))
        partial = super().partial(leaves, ord)
        if (scalars := _scalars(partial.scale, partial.total)) is None:
            return partial
        scale, total = scalars
        return NormPartial(scale, total, ord, _norm_dtype(leaves))

    def partials(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return one partial norm for each leaf, as tensors."""
        if ord != 2:
            return super().partials(leaves, ord)
        scales, totals, size = [], [], sum(sizes_of(leaves))
        for x in leaves:
            squares = squares_of([x], size)
            if squares is None:  # traced: then all are taken so
                return super().partials(leaves, ord)
            whole = None if squares.right() else self._whole(x, ord)
            scales.append(1.0 if whole is None else float(whole.scale))
            totals.append(squares.total if whole is None else float(whole.total))
        double = any(ns.is_double(x.dtype) for x in leaves)
        scale, total = (torch.tensor(values, dtype=torch.float64, device="cpu") for values in (scales, totals))
        return NormPartial(scale, total, ord, torch.float64 if double else torch.float32)

    def scale_(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place, if that changes anything."""
        for c, group in _groups(leaves, coefficients):
            known = _known(c)
            factor = None if known is None else plain_factor(group[0], known)
            if factor == 1.0:
                continue
            if factor is None or group[0].dtype in STORED:
                super().scale_(group, [c] * len(group))
            else:
                multiply_(group, factor)


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


def multiply_(leaves: list[Tensor], factor: float) -> None:
    """Multiply leaves of one precision in place by a number that it holds, and round once.

    The last leaves come first: they were read last, and some are in the cache still. PyTorch multiplies by a 0-d tensor
    3 times as fast as by a number.
    """
    rest = leaves[::-1]
    dtype = torch.float64 if rest[0].dtype in _DOUBLES else torch.float32
    wide = torch.scalar_tensor(factor, dtype=dtype, device="cpu")
    many = len(rest) >= _MANY and rest[0].dtype in _UNSCALED
    try:
        if many and all(x.numel() <= _TINY for x in rest[:: len(rest) // 8]):
            _unscale_(rest, wide)
        else:
            torch._foreach_mul_(rest, wide)  # pyright: ignore[reportPrivateImportUsage]  # torch.optim uses it too
    except RuntimeError:
        if not any(map(is_lazy, rest)):
            raise
        for x in rest:  # calls for many leaves refuse such views, before anything is done
            x.mul_(wide)


def _unscale_(leaves: list[Tensor], factor: Tensor) -> None:
    """Multiply by what torch.amp.GradScaler unscales with, in little more than half of the time for a tiny leaf."""
    found = torch.zeros_like(factor)
    torch._amp_foreach_non_finite_check_and_unscale_(leaves, found.view(1), factor.view(1))  # pyright: ignore[reportPrivateImportUsage]
    torch.autograd.graph.increment_version(leaves)  # as other operations in place do


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
