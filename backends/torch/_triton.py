"""The multi-tensor kernels in Triton: all leaves of a dtype in one launch, and no write where nothing is clipped.

For tensors on a device that Triton compiles for; it comes with PyTorch's builds for GPUs. A program works on one piece,
64 KiB of one leaf, found in a table of addresses that is kept while the tensors stay the same. What the kernels do is
what backends/cupy/kernels.cu does and explains. Tested in Triton's interpreter; built, not yet measured on a GPU.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradclip._coefficient import Coefficient
from gradclip._finished import Finished, Settings
from gradclip._ops import limited
from gradclip.backends.torch import _triton_kernels

PIECE_BYTES = 1 << 16
"""Of one piece; above `MOST_PIECES` pieces they grow."""

MOST_PIECES = 1 << 13

KEPT = 32
"""Tables that stay in memory."""

ORDERS = {math.inf: 0, 1.0: 1, 2.0: 2}
"""Orders of norms, and what they are called in the kernels; 3 is for others, given as a number."""

_HIGHEST = 4.0
"""The highest order whose powers of float32 float64 holds."""

_kernels: Any = _triton_kernels  # whose language is not typed

_TYPES = {
    torch.float16: _kernels.tl.float16,
    torch.bfloat16: _kernels.tl.bfloat16,
    torch.float32: _kernels.tl.float32,
    torch.float64: _kernels.tl.float64,
}
_BLOCK = 4096  # elements that a program holds at a time: 16 for each of 256 threads
_MERGED = 1024  # partials that one program takes at a time where it merges all: the fewer turns, the shorter the wait
_WARPS = 8
_COLUMNS = 3  # of the table: address, number of elements, leaf
_tables: OrderedDict[Any, "_Table"] = OrderedDict()
_captured: "list[_Table]" = []  # what a graph reads stays for as long as the process does


def suits(tensors: Sequence[Tensor], ord: float = 2.0) -> bool:
    """Return whether the kernels can do it: real tensors without gaps, on one device.

    In orders other than 1, 2 and inf, float64 holds the powers of narrower dtypes only.
    """
    device = tensors[0].device
    dense = torch.ops.aten.is_non_overlapping_and_dense
    if ord not in ORDERS and (ord > _HIGHEST or any(x.dtype == torch.float64 for x in tensors)):
        return False
    kinds = all(x.dtype in _TYPES and x.device == device for x in tensors)
    return kinds and all(map(dense, tensors)) and _has_addresses(tensors)


def _has_addresses(tensors: Sequence[Tensor]) -> bool:
    try:
        for x in tensors:
            x.data_ptr()
    except RuntimeError:  # traced by a transform of torch.func
        return False
    return True


def partials(tensors: Sequence[Tensor], ord: float) -> Tensor:
    """Return (scale, total) of each tensor's norm, which is scale · total^(1/ord): float64, of shape (n, 2)."""
    return _merged(tensors, ord, each=True)


def partial(tensors: Sequence[Tensor], ord: float) -> Tensor:
    """Return (scale, total) of the norm of all tensors together: float64, of shape (2,)."""
    return _merged(tensors, ord, each=False)[0]


def finished(tensors: Sequence[Tensor], ord: float, settings: Settings) -> Finished:
    """Return the partial norm of all tensors together, with its norm and the coefficient for settings."""
    table, parts = _parts(tensors, ord)
    device = parts.device
    numbers = settings.numbers()
    given = any(isinstance(number, Tensor) for number in numbers)
    on_device = _stacked(numbers, device) if given else parts
    bits = [_bits(ord), *(0 if given else _bits(number) for number in numbers)]
    result = torch.empty(5, dtype=torch.float64, device=device)
    norm = torch.empty((), dtype=torch.float32, device=device)
    flags = torch.empty(2, dtype=torch.bool, device=device)
    _kernels.finish_kernel[(1,)](
        parts, table.count, on_device, *bits, result, norm, flags,
        ORDER=ORDERS.get(ord, 3), GIVEN=given, ZERO=settings.zero, BLOCK=_MERGED, num_warps=8,
    )  # fmt: skip
    scale, total, wide, divisor, factor = result.unbind()
    changed, zeroed = flags.unbind()
    c = Coefficient(divisor, factor, changed, zeroed if settings.zero else None)
    double = any(x.dtype == torch.float64 for x in tensors)
    shown, dtype = (wide, torch.float64) if double else (norm, torch.float32)
    return Finished(scale, total, ord, dtype, shown, c, settings, result)


def _stacked(numbers: Sequence[Any], device: torch.device) -> Tensor:
    """Return numbers, some of which are on a device, in one tensor there."""
    wide = [x if isinstance(x, Tensor) else torch.full((), x, dtype=torch.float64, device=device) for x in numbers]
    return torch.stack([x.to(device, torch.float64) for x in wide])


def clamp_(tensors: Sequence[Tensor], low: float, high: float) -> None:
    """Move the elements of tensors into the bounds in place; those that lie within them are not written."""
    for dtype, begin, blocks, aligned in (table := _table(tensors)).groups:
        bounds = (float(torch.tensor(limited(bound, dtype), dtype=dtype)) for bound in (low, high))
        _kernels.clamp_kernel[(blocks,)](
            table.pieces_from(begin), *map(_bits, bounds),
            TYPE=_TYPES[dtype], ALIGNED=aligned, BLOCK=_BLOCK, num_warps=_WARPS,
        )  # fmt: skip


def scale_(
    tensors: Sequence[Tensor], divisor: Tensor, factor: Tensor, changed: Tensor, zeroed: Tensor | None = None
) -> None:
    """Multiply tensors in place by factor / divisor where ``changed``, and make them zero where ``zeroed``.

    The numbers, float64 and boolean on the tensors' device, are 0-d for all tensors or of shape (n,), one for each.
    """
    table = _table(tensors)
    each = int(factor.ndim > 0)
    for dtype, begin, blocks, aligned in table.groups:
        _kernels.scale_kernel[(blocks,)](
            table.pieces_from(begin), divisor, factor, changed, changed if zeroed is None else zeroed, each,
            ZERO=zeroed is not None, TYPE=_TYPES[dtype], ALIGNED=aligned, BLOCK=_BLOCK, num_warps=_WARPS,
        )  # fmt: skip


class _Table:
    """The pieces of tensors, in groups of one dtype and alignment.

    Parameters
    ----------
    tensors : sequence of Tensor
        Real ones without gaps.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        limit = PIECE_BYTES
        while sum(x.nbytes // limit for x in tensors) > MOST_PIECES:
            limit *= 2
        self.groups: list[tuple[torch.dtype, int, int, bool]] = []
        kinds = [(x.dtype, x.data_ptr() % 16 == 0) for x in tensors]
        rows: list[np.ndarray[Any, Any]] = [np.zeros((0, _COLUMNS), np.int64)]
        ranges = np.zeros((len(tensors), 2), np.int64)
        end = 0
        for kind in dict.fromkeys(kinds):
            begin = end
            for i in (i for i, other in enumerate(kinds) if other == kind):
                rows.append(_rows(i, tensors[i], limit))
                ranges[i] = end, end + len(rows[-1])
                end += len(rows[-1])
            if end > begin:
                self.groups.append((kind[0], begin, end - begin, kind[1]))
        self.count = end
        host = torch.from_numpy(np.concatenate([*rows, ranges, [[0, end]]], axis=None))
        device = tensors[0].device
        # What a captured graph copies from is read again whenever it runs: it stays for as long as the table does.
        self._host = host if device.type == "cpu" else host.pin_memory()
        memory = self._host.to(device, non_blocking=True)
        self.pieces = memory[: _COLUMNS * end]
        self.ranges = memory[_COLUMNS * end : -2].view(-1, 2)
        self.whole = memory[-2:].view(1, 2)

    def pieces_from(self, begin: int) -> Tensor:
        """Return the pieces from one on."""
        return self.pieces[_COLUMNS * begin :]


def _rows(leaf: int, x: Tensor, limit: int) -> np.ndarray[Any, Any]:
    each = limit // x.element_size()
    starts = np.arange(0, x.numel(), each, dtype=np.int64)
    counts = np.minimum(each, x.numel() - starts)
    return np.stack([x.data_ptr() + starts * x.element_size(), counts, np.full(len(starts), leaf)], axis=1)


def _table(tensors: Sequence[Tensor]) -> _Table:
    """Return the table for tensors: the last one, while they lie where they lay, on the same stream."""
    stream: object = None
    if tensors[0].is_cuda:
        if torch.cuda.is_current_stream_capturing():
            _captured.append(_Table(tensors))
            return _captured[-1]
        stream = torch.cuda.current_stream(tensors[0].device).cuda_stream
    key = stream, tensors[0].device, tuple([(x.data_ptr(), x.numel(), x.dtype) for x in tensors])
    if key in _tables:
        _tables.move_to_end(key)
    else:
        _tables[key] = _Table(tensors)
        if len(_tables) > KEPT:
            _tables.popitem(last=False)
    return _tables[key]


def _merged(tensors: Sequence[Tensor], ord: float, *, each: bool) -> Tensor:
    table, parts = _parts(tensors, ord)
    ranges = table.ranges if each else table.whole
    out = torch.empty((len(ranges), 2), dtype=torch.float64, device=parts.device)
    block = _MERGED if len(ranges) == 1 else 256
    order = ORDERS.get(ord, 3)
    _kernels.merge_kernel[(len(ranges),)](parts, ranges, out, ORDER=order, BLOCK=block, num_warps=block // 128)
    return out


def _parts(tensors: Sequence[Tensor], ord: float) -> tuple[_Table, Tensor]:
    """Return the table of tensors and the partials of its pieces: float64, of shape (pieces, 2)."""
    table = _table(tensors)
    device = tensors[0].device
    parts = torch.empty((max(1, table.count), 2), dtype=torch.float64, device=device)
    for dtype, begin, blocks, aligned in table.groups:
        pairs = ord in (1, 2) and _pairs(device, dtype)
        _kernels.partials_kernel[(blocks,)](
            table.pieces_from(begin), parts[begin:], _bits(ord), ORDER=ORDERS.get(ord, 3), PAIRS=pairs,
            TYPE=_TYPES[dtype], ALIGNED=aligned, BLOCK=_BLOCK, num_warps=_WARPS,
        )  # fmt: skip
    return table, parts


def _bits(number: float) -> int:
    """Return the bits of a float64 as an integer."""
    return int(np.float64(number).view(np.int64))


def _pairs(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether to sum in pairs of float32: where float64 is slow, as on all GPUs but those for data centres."""
    if device.type != "cuda" or torch.version.hip or dtype == torch.float64:
        return False
    return torch.cuda.get_device_capability(device) not in {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}
