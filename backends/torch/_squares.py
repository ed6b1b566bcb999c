"""Sums of squares of CPU tensors: one read at the speed of memory, and rounding that does not grow with the size.

What NumPy can read where it lies, it adds in short blocks (see ``gradclip._squares``), on one thread and at the least
cost a call. Large models in float32, for which one thread waits for memory, and half precision, which has to be widened
on the way, PyTorch adds (see ``_rows``): its threads may still be awake from the backward pass, and would be in the way
of others.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors  # pyright: ignore[reportPrivateUsage]  # as torch.nn.parallel does

from gradclip._squares import Squares, sum_of_squares
from gradclip.backends.torch._ops import chunks, in_memory_order, pieces
from gradclip.backends.torch._rows import RowSums, adds_half

_SMALL = 1 << 14
"""Leaves below this many elements are laid end to end first: a copy in the cache costs less than a call."""

_PACKED = 1 << 18
"""Elements that are laid end to end at once: 1 MiB in float32."""

_LARGE, _BEYOND_CACHE = 1 << 17, 1 << 23
"""Elements of a leaf, and of all, from which on several threads add faster than one."""

_LITTLE = 1 << 20
"""Elements that may be laid end to end and kept: 4 MiB in float32."""

_ALONE = 1 << 15
"""Elements that PyTorch converts on one thread: waking others costs more than they save."""

_HALF = {torch.bfloat16, torch.float16}
FLOATS = {torch.float32, torch.float64}
_NUMPYS = FLOATS | {torch.complex64, torch.complex128}
_FLOAT32 = np.dtype(np.float32)


def sizes_of(leaves: Sequence[Tensor]) -> list[int]:
    """Return the number of elements of each leaf."""
    return list(map(Tensor.numel, leaves))


def parts_of(leaves: Sequence[Tensor], sizes: Sequence[int]) -> Iterator[Tensor]:
    """Yield tensors with all elements of leaves of these sizes, the small ones laid end to end, some at a time.

    Leaves of several dtypes are joined in one that holds all their numbers.
    """
    if max(sizes, default=0) < _SMALL:
        yield from _joined(leaves, sizes)
        return
    yield from [x for x, n in zip(leaves, sizes, strict=True) if n >= _SMALL]
    small = [x for x, n in zip(leaves, sizes, strict=True) if n < _SMALL]
    yield from _joined(small, [n for n in sizes if n < _SMALL])


def joins_little(sizes: Sequence[int]) -> bool:
    """Whether the small leaves of these sizes may all be laid end to end at once: they have a few MB at most."""
    return sum(sizes) <= _LITTLE or sum([n for n in sizes if n < _SMALL]) <= _LITTLE


def is_plain(x: Tensor) -> bool:
    """Whether a tensor is float32 that NumPy can read where it lies, one element after the other."""
    kind = type(x) is Tensor and x.dtype is torch.float32 and x.is_cpu and x.layout is torch.strided
    return kind and x.is_contiguous() and not x.is_neg() and not x.requires_grad


def squares_of_plain(parts: Sequence[Tensor]) -> Squares | None:
    """Return the sum of squares of tensors that are all plain (see `is_plain`), with less calls than `squares_of`."""
    size = sum(sizes_of(parts))
    if _is_shared(size):
        return squares_of(parts, size)
    squares = Squares()
    with np.errstate(all="ignore"):
        squares.add_sum(sum([sum_of_squares(x.numpy().reshape(-1)) for x in parts]), size, _FLOAT32)
    return squares


def squares_of(parts: Iterable[Tensor], size: int) -> Squares | None:
    """Return the sum of squares of dense CPU tensors, or None if their memory cannot be read: under torch.func.

    Overflow is not warned of: it shows in the sum. ``size`` is the number of elements of all parts.
    """
    squares, rows = Squares(), RowSums()
    large = _LARGE if _is_shared(size) else math.inf
    try:
        with np.errstate(all="ignore"):
            for x in parts:
                _add(squares, rows, x.detach() if x.requires_grad else x, x.numel() >= large)
            squares.add_sum(rows.total(), 0, _FLOAT32)
    except RuntimeError as e:
        if "storage" not in str(e) and ".item()" not in str(e):
            raise
        return None
    return squares


def _is_shared(size: int) -> bool:
    return size >= _BEYOND_CACHE and torch.get_num_threads() > 1


def _joined(small: Sequence[Tensor], sizes: Sequence[int]) -> Iterator[Tensor]:
    """Yield small leaves laid end to end, in tensors that fit into the cache."""
    if sum(sizes) <= _PACKED:
        if small:
            yield _join(small)
        return
    start = size = 0
    for end, n in enumerate(sizes, 1):
        size += n
        if size >= _PACKED or end == len(sizes):
            yield _join(small[start:end])
            start, size = end, 0


def _join(small: Sequence[Tensor]) -> Tensor:
    if len(small) == 1:
        return small[0]
    try:
        if len(small) >= 32 and small[0].dim() == small[-1].dim() == 1:  # then all may well have one axis
            return torch.cat(list(small))
        joined: Tensor = _flatten_dense_tensors(small)  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
        return joined
    except RuntimeError:  # not all have, or they are traced by torch.func
        return torch.cat([x.reshape(-1) for x in small])


def _add(squares: Squares, rows: RowSums, x: Tensor, large: bool) -> None:
    """Add a tensor; its rows, if it is large or of half precision."""
    dtype = x.dtype
    if dtype in _HALF:
        _add_half(squares, rows, x)
    elif dtype in FLOATS and x.is_contiguous() and not x.is_neg():
        if large and dtype is torch.float32:
            squares.add_sum(0.0, x.numel(), _FLOAT32)  # what float32 may have lost
            x = rows.add(x.view(-1))
        squares.add_flat(x.numpy().reshape(-1))
    elif dtype in _NUMPYS:
        squares.add(x.resolve_neg().resolve_conj().numpy())
    else:
        for piece in pieces(x):
            squares.add(piece.double().numpy())


def _add_half(squares: Squares, rows: RowSums, x: Tensor) -> None:
    flat = in_memory_order(x)
    if flat is not None and flat.numel() >= _ALONE and adds_half(x.dtype):
        flat = rows.add(flat)
    for piece in pieces(x) if flat is None else [flat]:
        for part in chunks(piece.reshape(-1), _ALONE):
            squares.add_flat(part.float().numpy(), fits=True)
    if x.dtype is torch.bfloat16:  # of float16, float32 holds every square
        squares.add_sum(0.0, x.numel(), _FLOAT32)
