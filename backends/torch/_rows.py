"""Sums of squares over rows of some hundred elements, which PyTorch adds in float32 with all its threads.

The rows are added up in float64, so that rounding does not grow with the size. Each thread reads what it also writes in
PyTorch's operations in place: what is in its core's cache stays there when gradients are read and then multiplied.
"""

from collections.abc import Iterable, Sequence
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
"""Rows whose norms are kept until they are added: 1 MiB, or 2 where one leaf ends and another begins."""

_ALONE = 1 << 13
"""Numbers that BLAS multiplies on one thread. Its others would have to be woken, and get in PyTorch's way."""


def sum_of_large(x: Tensor) -> float:
    """Return the sum of squares of a contiguous tensor of float32, which NumPy can read."""
    size = x.numel()
    row = _SHORT if size <= _MEDIUM else _ROW
    left = size % row
    if left:
        flat = x.view(-1)
        return sum_of_large(flat[:-left]) + sum_of_squares(flat[-left:].numpy())
    if size > _ROWS * row:
        return sum(map(sum_of_large, torch.split(x.view(-1), _ROWS * row)))
    return _sum_of_norms(torch.linalg.vector_norm(x.view(-1, row), dim=1))


def sum_from_memory(leaves: Iterable[Tensor]) -> float:
    """Return the sum of squares of such tensors, together too large for the cache.

    Each thread reads at two places in turn: a processor fetches ahead at both, so that more is on its way from memory.
    """
    total, waiting, count = 0.0, [], 0
    for x in leaves:
        flat = x.view(-1)
        left = flat.numel() % (2 * _ROW)
        if left:
            total += sum_of_squares(flat[-left:].numpy())
            flat = flat[:-left]
        for part in torch.split(flat, _ROWS * _ROW):
            waiting.append(part.view(2, -1, _ROW))
            count += part.numel() // _ROW
            if count >= _ROWS:
                total += _sum_of_pairs(waiting)
                waiting, count = [], 0
    return total + _sum_of_pairs(waiting) if waiting else total


def _sum_of_pairs(pairs: Sequence[Tensor]) -> float:
    """Return the sum of squares of tensors of shape ``(2, rows, elements)``, of which each has its two places."""
    counts = [x.shape[1] for x in pairs]
    norms = pairs[0].new_empty(sum(counts), 2)  # rows are read in the order in which this is written
    for x, out in zip(pairs, torch.split(norms.t(), counts, 1), strict=True):
        torch.linalg.vector_norm(x, dim=2, out=out)
    return _sum_of_norms(norms.view(-1))


def _sum_of_norms(norms: Tensor) -> float:
    values = norms.numpy()
    parts = (values[i : i + _ALONE].astype(np.float64) for i in range(0, len(values), _ALONE))
    return float(sum(part.dot(part) for part in parts))


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
    dots: Tensor = torch.ops.aten.native_group_norm_backward(
        rows, rows, torch.zeros(1, 1), torch.ones(1, 1), torch.ones(count), 1, count, length, 1, [False, True, False]
    )[1]
    return dots


@cache
def adds_half(dtype: torch.dtype) -> bool:
    """Whether this version of PyTorch adds half precision in float32: tried once, on a small example."""
    x = torch.linspace(0.0, 2.0, 2 * _ROW).to(dtype).view(2, _ROW)
    want = x.double().square().sum(1)
    try:
        got = _dots(x)
    except (RuntimeError, NotImplementedError):
        return False
    return got.dtype == torch.float32 and bool((got.double() - want).abs().max() <= 1e-6 * want.max())
