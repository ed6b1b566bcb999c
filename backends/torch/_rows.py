"""Sums of squares over rows of some hundred elements, which PyTorch adds in float32 with all its threads.

The rows are added up in float64, so that rounding does not grow with the size.
"""

from functools import cache

import torch
from torch import Tensor

_ROW = 256
"""Elements of a row. PyTorch adds them on 16 or 8 running sums, so that 16 or 32 squares follow each other: float32
then errs by 6e-7 at the worst, which is that all numbers are equal, and by 1e-8 as a rule."""

_ROWS = 1 << 15
"""Rows that are calculated at once, and kept before they are added up: half a MiB of scratch."""


class RowSums:
    """A sum of squares that takes rows: calls for one leaf follow those for another, and are added up afterwards."""

    def __init__(self) -> None:
        self._norms: list[Tensor] = []
        self._dots: list[Tensor] = []
        self._pending = 0
        self._total = 0.0

    def add(self, flat: Tensor) -> Tensor:
        """Add the whole rows of a 1-D tensor of float32 or half precision; return the rest, which makes none."""
        whole = flat.numel() // _ROW * _ROW
        for rows in torch.split(flat[:whole].view(-1, _ROW), _ROWS):
            if flat.dtype is torch.float32:
                self._norms.append(torch.linalg.vector_norm(rows, dim=1))
            else:
                self._dots.append(_dots(rows))
            self._pending += len(rows)
            if self._pending >= _ROWS:
                self._add_up()
        return flat[whole:]

    def total(self) -> float:
        """Return the sum."""
        self._add_up()
        return self._total

    def _add_up(self) -> None:
        if self._norms:
            norms = torch.cat(self._norms).double()
            self._total += float(norms.dot(norms))
        if self._dots:
            self._total += float(torch.cat(self._dots).double().sum())
        self._norms, self._dots, self._pending = [], [], 0


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
