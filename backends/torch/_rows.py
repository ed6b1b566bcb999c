"""Sums of squares over rows of some hundred elements, which PyTorch adds in float32 with all its threads.

The rows are added up in float64, so that rounding does not grow with the size. Each thread reads what it also writes in
PyTorch's operations in place: what is in its core's cache stays there when gradients are read and then multiplied.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from gradclip._squares import sum_of_squares

_ROW, _SHORT = 256, 128
"""Elements of a row: of most, and of float32 in leaves up to ``_MEDIUM`` elements while they may be in the cache.

PyTorch adds the squares of float32 on 8 running sums, so that 32 or 16 follow each other. That errs by 3e-7 or 2e-7 at
the worst, which is that all numbers are equal, and by 1e-8 as a rule. Longer rows err more, and are hardly faster.
"""

_MEDIUM = 1 << 20

_ROWS = 1 << 18
"""Rows whose norms are kept until they are added: 1 MiB in float32, and 2 in float64."""

_ALONE = 1 << 13
"""Norms that NumPy adds sooner. Of more, its BLAS would wake threads of its own, which get in PyTorch's way."""


def sum_of_large(x: Tensor) -> float:
    """Return the sum of squares of a contiguous tensor of float32, which NumPy can read."""
    size = x.numel()
    row = _SHORT if size <= _MEDIUM else _ROW
    left = size % row
    if left:
        flat = x.view(-1)
        return sum_of_large(flat[:-left]) + sum_of_squares(flat[-left:].numpy())
    return _sum_of_norms(torch.linalg.vector_norm(x.view(-1, row), dim=1))


def sum_from_memory(leaves: Sequence[Tensor]) -> float:
    """Return the sum of squares of such tensors, together too large for the cache.

    Each thread reads its share at two places in turn: a processor fetches ahead at both, so that more is on its way
    from memory.
    """
    if not leaves:
        return 0.0
    threads = torch.get_num_threads()
    places = 2 * threads
    most = _ROWS - _ROWS % places
    norms, total, used = leaves[0].new_empty(_ROWS), 0.0, 0
    for x in leaves:
        left = x.numel() % (places * _ROW)
        if left:
            x = x.view(-1)
            total += sum_of_squares(x[-left:].numpy())
            x = x[:-left]
        for part in [x] if x.numel() <= most * _ROW else torch.split(x.view(-1), most * _ROW):
            rows = part.numel() // _ROW
            if used + rows > _ROWS:
                total += _sum_of_norms(norms[:used])
                used = 0
            # Rows are read in the order in which their norms lie in memory.
            out = norms.as_strided((threads, 2, rows // places), (rows // threads, 1, 2), used)
            torch.linalg.vector_norm(part.view(threads, 2, rows // places, _ROW), dim=3, out=out)
            used += rows
    return total + _sum_of_norms(norms[:used])


def _sum_of_norms(norms: Tensor) -> float:
    if norms.numel() <= _ALONE:
        few = norms.numpy().astype(np.float64)
        return float(few.dot(few))
    wide = norms.double()
    return float(wide.dot(wide))


def sum_of_half(flat: Tensor) -> tuple[float, Tensor]:
    """Return the sum of squares of the whole rows of a 1-D tensor of half precision, and the rest, which makes none."""
    whole = flat.numel() // _ROW * _ROW
    rows = torch.split(flat[:whole].view(-1, _ROW), _ROWS)
    return sum(float(_dots(some).double().sum()) for some in rows), flat[whole:]


def _dots(rows: Tensor) -> Tensor:
    """Return the dot product of each row with itself, in float32.

    PyTorch has no such function for half precision: its own round the result to half precision, or widen all elements
    in memory first. But the derivative of group normalisation with respect to its scale is just that, for groups of one
    row each, a mean of 0 and a deviation of 1: the sum of dy * (x - 0) * 1 over a row, with dy = x.
    """
    count, length = rows.shape
    mean, ones = rows.new_zeros(1, 1, dtype=torch.float32), rows.new_ones(count, dtype=torch.float32)
    dots: Tensor = torch.ops.aten.native_group_norm_backward(
        rows, rows, mean, ones[:1].view(1, 1), ones, 1, count, length, 1, [False, True, False]
    )[1]
    return dots


@cache
def adds_half(dtype: torch.dtype) -> bool:
    """Whether this version of PyTorch adds half precision in float32: tried once, on a small example."""
    x = torch.linspace(0.0, 2.0, 2 * _ROW, dtype=torch.float32, device="cpu").to(dtype).view(2, _ROW)
    want = x.double().square().sum(1)
    try:
        got = _dots(x)
    except (RuntimeError, NotImplementedError):
        return False
    return got.dtype == torch.float32 and bool((got.double() - want).abs().max() <= 1e-6 * want.max())
