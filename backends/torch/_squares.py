"""Sums of squares of CPU tensors: one read at the speed of memory, and rounding that does not grow with the size.

What NumPy can read where it lies, it adds in short blocks (see ``gradclip._squares``), on one thread and at the least
cost a call. Large leaves in float32, for which one thread waits for memory, and half precision, which has to be widened
on the way, PyTorch adds (see ``_rows``): its threads may still be awake from the backward pass, and would be in the way
of others.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors  # pyright: ignore[reportPrivateUsage]  # as torch.nn.parallel does

from gradclip._squares import Squares, holds, sum_of_squares
from gradclip.backends.torch._ops import STORED, chunks, in_memory_order, pieces, widened
from gradclip.backends.torch._rows import adds_half, sum_from_memory, sum_of_half, sum_of_large

_SMALL = 1 << 14
"""Leaves below this many elements are laid end to end first: a copy in the cache costs less than a call."""

_PACKED = 1 << 18
"""Elements that are laid end to end at once: 1 MiB in float32."""

_LARGE = 1 << 17
"""Elements of a leaf from which on several threads add faster than one."""

_CACHED = 1 << 23
"""Elements of all leaves up to which the cache may hold them: 32 MiB in float32."""

LISTED = 32
"""Leaves from which on they are joined faster without autograd. If there are fewer, it shows whether it watches one."""

_LITTLE = 1 << 20
"""Elements that may be laid end to end and kept: 4 MiB in float32."""

_ALONE = 1 << 15
"""Elements that PyTorch converts on one thread: waking others costs more than they save."""

_HALF = {torch.bfloat16, torch.float16}
_FLOATS = {torch.float32, torch.float64}
_NUMPYS = _FLOATS | {torch.complex64, torch.complex128}
_FLOAT32 = np.dtype(np.float32)
_TENSOR = {Tensor}


def sizes_of(leaves: Sequence[Tensor]) -> list[int]:
    """Return the number of elements of each leaf."""
    return list(map(Tensor.numel, leaves))


def parts_of(leaves: Sequence[Tensor], sizes: Sequence[int]) -> Iterable[Tensor]:
    """Return tensors with all elements of leaves of these sizes, the small ones laid end to end.

    Leaves of several dtypes are joined in one that holds all their numbers. A list is returned where a MiB of them is
    joined at most; more are joined one MiB after the other.
    """
    parts: list[Tensor] = []
    small, small_sizes = leaves, sizes
    if max(sizes, default=0) >= _SMALL:
        small, small_sizes = [], []
        for x, n in zip(leaves, sizes, strict=True):
            if n >= _SMALL:
                parts.append(x)
            else:
                small.append(x)
                small_sizes.append(n)
    if sum(small_sizes) > _PACKED:
        return chain(parts, _joined(small, small_sizes))
    if small:
        parts.append(_join(small))
    return parts


def joins_little(sizes: Sequence[int]) -> bool:
    """Whether the small leaves of these sizes may all be laid end to end at once: they have a few MB at most."""
    return sum([n for n in sizes if n < _SMALL]) <= _LITTLE


def sum_of_plain(parts: Sequence[Tensor]) -> float | None:
    """Return the sum of squares of float32 tensors that NumPy can read where they lie, in less calls than `squares_of`.

    None if one of them is something else, or if the sum cannot be trusted.
    """
    if set(map(type, parts)) != _TENSOR:
        return None
    try:
        arrays = [x.numpy() for x in parts]
    except (RuntimeError, TypeError):  # on another device, sparse, traced, or watched by autograd
        return None
    total, size = 0.0, sum([a.size for a in arrays])
    large, cached = _large(), size < _CACHED
    later: list[Tensor] = []
    with np.errstate(all="ignore"):
        for x, a in zip(parts, arrays, strict=True):
            if a.dtype is not _FLOAT32 or not a.flags.c_contiguous:
                return None
            if a.size < large:
                total += sum_of_squares(a.reshape(-1))
            elif cached:
                total += sum_of_large(x)
            else:
                later.append(x)
        total += sum_from_memory(later)
    return total if holds(total, size, _FLOAT32) else None


def squares_of(parts: Iterable[Tensor], size: int) -> Squares | None:
    """Return the sum of squares of dense CPU tensors, or None if their memory cannot be read: under torch.func.

    They are read together with others, ``size`` elements in all. Overflow is not warned of: it shows in the sum.
    """
    squares = Squares()
    large = _large()
    later: list[Tensor] = []
    try:
        with np.errstate(all="ignore"):
            for part in parts:
                x = part.detach() if part.requires_grad else part
                if x.dtype is not torch.float32 or x.numel() < large or not _is_flat(x):
                    _add(squares, x)
                elif size < _CACHED:
                    squares.add_sum(sum_of_large(x), x.numel(), _FLOAT32)
                else:
                    x.numpy()  # raises if torch.func traces it
                    later.append(x)
            squares.add_sum(sum_from_memory(later), sum(sizes_of(later)), _FLOAT32)
    except RuntimeError as e:
        if "storage" not in str(e) and ".item()" not in str(e):
            raise
        return None
    return squares


def _large() -> float:
    """Return how many elements make a leaf one for several threads, if there are several."""
    return _LARGE if torch.get_num_threads() > 1 else math.inf


def _joined(small: Sequence[Tensor], sizes: Sequence[int]) -> Iterator[Tensor]:
    """Yield small leaves laid end to end, in tensors that fit into the cache."""
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
        if len(small) >= LISTED and small[0].dim() == small[-1].dim() == 1:  # then all may well have one axis
            with torch.inference_mode():
                return torch.cat(list(small))
        joined: Tensor = _flatten_dense_tensors(small)  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
        return joined
    except RuntimeError:  # not all have, or they are traced by torch.func, or of float8 and other dtypes
        return torch.cat([_line(x) for x in small])


def _line(x: Tensor) -> Tensor:
    """Return all elements of a tensor in one axis, in a dtype that PyTorch joins with others."""
    return (x.to(torch.promote_types(STORED[x.dtype], torch.float64)) if x.dtype in STORED else x).reshape(-1)


def _is_flat(x: Tensor) -> bool:
    """Whether NumPy can read the elements where they lie, one after the other."""
    return x.is_contiguous() and not x.is_neg()


def _add(squares: Squares, x: Tensor) -> None:
    """Add a tensor on one thread; the rows of half precision on PyTorch's."""
    dtype = x.dtype
    if dtype in _HALF:
        _add_half(squares, x)
    elif dtype in _FLOATS and _is_flat(x):
        squares.add_flat(x.numpy().reshape(-1))
    elif dtype in _NUMPYS:
        squares.add(x.resolve_neg().resolve_conj().numpy())
    else:
        for piece in pieces(x):
            squares.add(widened(piece).resolve_neg().resolve_conj().numpy())


def _add_half(squares: Squares, x: Tensor) -> None:
    flat = in_memory_order(x)
    if flat is not None and flat.numel() >= _ALONE and adds_half(x.dtype):
        total, flat = sum_of_half(flat)
        squares.add_sum(total, 0, _FLOAT32)
    for piece in pieces(x) if flat is None else [flat]:
        for part in chunks(piece.reshape(-1), _ALONE):
            squares.add_flat(part.float().numpy(), fits=True)
    if x.dtype is torch.bfloat16:  # of float16, float32 holds every square
        squares.add_sum(0.0, x.numel(), _FLOAT32)
