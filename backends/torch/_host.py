"""``Ops`` for tensors in the host's memory: NumPy reads them where they lie, and what needs no change is not written.

``np.vecdot`` on short blocks adds squares as fast as memory delivers them, and more exactly than PyTorch's own sums;
the norm is a NumPy scalar, with which a coefficient costs some microseconds less than with 0-d tensors.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gradclip import _namespace as ns
from gradclip._coefficient import Coefficient
from gradclip._numpy import Squares, plain_factor
from gradclip._partial import NormPartial
from gradclip.backends.torch._ops import TorchOps, chunks, in_memory_order, pieces

NDArray: TypeAlias = np.ndarray[Any, Any]

_SMALL = 1 << 14
"""Leaves below this many elements are laid end to end first: a copy in the cache costs less than a call."""

_PACKED = 1 << 17
"""Elements that are laid end to end at once: 512 KiB in float32."""

_PAIRS = 1 << 16
"""Pairs of bfloat16 that are widened at once: the scratch of 256 KiB stays in the second-level cache."""

_ALONE = 1 << 15
"""Elements that PyTorch converts on one thread: waking others costs more than they save on a busy machine."""

_FLOATS = {torch.float32, torch.float64}
_NUMPYS = _FLOATS | {torch.complex64, torch.complex128}
_CPU = {torch.device("cpu")}
_TYPES = {Tensor, torch.nn.Parameter}


class HostOps(TorchOps):
    """The operations of ``Ops`` for CPU tensors."""

    def partial(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end, as NumPy scalars."""
        squares = sum_of_squares(leaves) if ord == 2 else None
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
        scales, totals = [], []
        for x in leaves:
            squares = sum_of_squares([x])
            if squares is None:  # traced: then all are taken so
                return super().partials(leaves, ord)
            whole = None if squares.right() else self._whole(x, ord)
            scales.append(1.0 if whole is None else float(whole.scale))
            totals.append(squares.total if whole is None else float(whole.total))
        double = any(ns.is_double(x.dtype) for x in leaves)
        scale, total = (torch.tensor(values, dtype=torch.float64) for values in (scales, totals))
        return NormPartial(scale, total, ord, torch.float64 if double else torch.float32)

    def scale_(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place, if that changes anything."""
        for c, group in _groups(leaves, coefficients):
            known = _known(c)
            factor = None if known is None else plain_factor(group[0], known)
            if factor is None:
                super().scale_(group, [c] * len(group))
            elif factor != 1.0:
                _multiply_(group, factor)


def on_host(leaves: Sequence[Tensor]) -> bool:
    """Whether all leaves are plain tensors, of no subclass, in the host's memory, and not traced by a compiler."""
    plain = {type(x) for x in leaves} <= _TYPES and {x.device for x in leaves} <= _CPU
    return plain and not torch.compiler.is_compiling()


def sum_of_squares(leaves: Sequence[Tensor]) -> Squares | None:
    """Return the sum of squares, or None if memory cannot be read: under the transforms of torch.func."""
    squares = Squares()
    try:
        with np.errstate(all="ignore"):  # whether a square overflowed is asked of the sum
            for x in _packed(leaves):
                _add(squares, x.detach() if x.requires_grad else x)
    except RuntimeError as e:
        if "storage" not in str(e):
            raise
        return None
    return squares


def _packed(leaves: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield the leaves, small ones laid end to end: of several dtypes, in one that holds all their numbers."""
    pack: list[Tensor] = []
    size = 0
    for x in leaves:
        n = x.numel()
        if n >= _SMALL:
            yield x
            continue
        pack.append(x if x.dim() == 1 else x.reshape(-1))
        size += n
        if size >= _PACKED:
            yield torch.cat(pack)
            pack, size = [], 0
    if pack:
        yield pack[0] if len(pack) == 1 else torch.cat(pack)


def _add(squares: Squares, x: Tensor) -> None:
    if x.dtype is torch.float32 and x.is_contiguous():
        squares.add_flat(x.view(-1).numpy())
    elif x.dtype in (torch.bfloat16, torch.float16):
        for part in _widened(x):
            squares.add_flat(part, fits=x.dtype is torch.float16)  # of which float32 holds every square
    elif x.dtype in _NUMPYS:
        squares.add(x.resolve_conj().resolve_neg().numpy())
    else:
        for piece in pieces(x):
            squares.add(piece.double().numpy())


def _widened(x: Tensor) -> Iterator[NDArray]:
    """Yield the elements of a half-precision tensor in float32, in some order. Each is valid until the next."""
    flat = in_memory_order(x)
    if x.dtype is torch.bfloat16 and flat is not None and flat.numel() > 1:
        even = flat.numel() // 2 * 2
        yield from _pairs(flat[:even].view(torch.int16).numpy().view(np.uint16))
        flat = flat[even:]
    scratch = torch.empty(_ALONE)
    for piece in pieces(x) if flat is None else (flat,):
        for part in chunks(piece.reshape(-1), _ALONE):
            yield scratch[: part.numel()].copy_(part).numpy()


def _pairs(bits: NDArray) -> Iterator[NDArray]:
    """Yield the even and the odd elements of bfloat16 bits: each is the upper half of the float32 of its value."""
    pairs = bits.view(np.uint32)
    scratch = np.empty(min(_PAIRS, pairs.size), np.uint32)
    for start in range(0, pairs.size, _PAIRS):
        part = pairs[start : start + _PAIRS]
        out = scratch[: part.size]
        yield np.bitwise_and(part, np.uint32(0xFFFF0000), out=out).view(np.float32)
        yield np.left_shift(part, np.uint32(16), out=out).view(np.float32)


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


def _multiply_(leaves: list[Tensor], factor: float) -> None:
    """Multiply in place by a 0-d tensor: 3 times as fast as by a number, and half precision is rounded only once."""
    wide = torch.tensor(factor, dtype=torch.float64 if ns.is_double(leaves[0].dtype) else torch.float32)
    torch._foreach_mul_(leaves, wide)  # pyright: ignore[reportPrivateImportUsage]  # torch.optim uses it too


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
