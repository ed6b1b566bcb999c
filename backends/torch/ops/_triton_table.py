"""The table that the kernels in Triton read: every gradient is cut into pieces, which are listed with addresses."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradclip import _dtypes

PIECE_BYTES = 1 << 14
"""The least size of a piece."""

MOST_PIECES, LARGEST = 1 << 11, 1 << 20
"""If there would be more pieces than ``MOST_PIECES``, they grow, up to ``LARGEST`` bytes. So many pieces are enough for
any device, and one program has to merge their partial norms. The limit of bytes keeps the rounding error small."""

KEPT = 32
"""How many tables are kept: one for each set of tensors that was clipped last."""

_COLUMNS = 3  # address, number of elements, tensor
_tables: OrderedDict[Any, "Table"] = OrderedDict()
_captured: "list[Table]" = []  # tables that captured graphs read; kept until the process ends


class Group(NamedTuple):
    """The pieces of all tensors of one dtype and alignment, and memory for partial norms; ``blocks`` is their count."""

    dtype: torch.dtype
    aligned: bool
    blocks: int
    pieces: Tensor
    parts: Tensor


class Table:
    """The pieces of tensors in their device's memory, with memory for the results of the kernels.

    Every call on the table's stream uses this memory again, in the order of that stream.

    Parameters
    ----------
    tensors : sequence of Tensor
        Real tensors without gaps, on one device.

    Attributes
    ----------
    parts : Tensor
        Of shape (count, 2), float64: the scale and the total of each piece.
    ranges, whole : Tensor
        The first piece and the one after the last, for each tensor and for all together.
    result, flags : Tensor
        Scale, total, divisor and factor, float64; changed and zeroed, boolean.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.device = tensors[0].device
        self.dtypes = {x.dtype for x in tensors}
        self._blocks = [(x.data_ptr(), x.nbytes) for x in tensors]
        limit = PIECE_BYTES
        while limit < LARGEST and sum(size // limit for _, size in self._blocks) > MOST_PIECES:
            limit *= 2
        kinds = [(x.dtype, start % 16 == 0) for x, (start, _) in zip(tensors, self._blocks, strict=True)]
        rows: list[np.ndarray[Any, Any]] = [np.zeros((0, _COLUMNS), np.int64)]
        ranges = np.zeros((len(tensors), 2), np.int64)
        spans: dict[tuple[torch.dtype, bool], tuple[int, int]] = {}
        end = 0
        for kind in dict.fromkeys(kinds):
            begin = end
            for i in (i for i, other in enumerate(kinds) if other == kind):
                rows.append(_rows(i, *self._blocks[i], tensors[i].element_size(), limit))
                ranges[i] = end, end + len(rows[-1])
                end += len(rows[-1])
            if end > begin:
                spans[kind] = begin, end
        self.count = end
        host = torch.from_numpy(np.concatenate([*rows, ranges, [[0, end]]], axis=None))
        # A captured graph copies from this memory whenever it runs, so it is kept as long as the table.
        self._host = host if self.device.type == "cpu" else host.pin_memory()
        memory = self._host.to(self.device, non_blocking=True)
        self.ranges = memory[_COLUMNS * end : -2].view(-1, 2)
        self.whole = memory[-2:].view(1, 2)
        self.parts = torch.empty((max(1, end), 2), dtype=torch.float64, device=self.device)
        self.groups = [
            Group(*kind, stop - start, memory[_COLUMNS * start : _COLUMNS * stop], self.parts[start:stop])
            for kind, (start, stop) in spans.items()
        ]
        self.result = torch.empty(4, dtype=torch.float64, device=self.device)
        self.flags = torch.empty(2, dtype=torch.bool, device=self.device)

    @cached_property
    def norm_dtype(self) -> torch.dtype:
        """The dtype of the tensors' norm."""
        return torch.float64 if any(map(_dtypes.is_double, self.dtypes)) else torch.float32

    @cached_property
    def apart(self) -> bool:
        """Whether no two of the tensors share memory."""
        blocks = sorted(block for block in self._blocks if block[1])
        return all(start + size <= after for (start, size), (after, _) in pairwise(blocks))


def _rows(tensor: int, start: int, size: int, width: int, limit: int) -> np.ndarray[Any, Any]:
    starts = np.arange(0, size, limit, dtype=np.int64)
    counts = np.minimum(limit, size - starts) // width
    return np.stack([start + starts, counts, np.full(len(starts), tensor)], axis=1)


def table_of(tensors: Sequence[Tensor], fits: Callable[[Sequence[Tensor]], bool] = lambda _: True) -> Table | None:
    """Return the table for tensors on the current stream; it is made again only if the tensors moved.

    Return None if the kernels cannot read the tensors, as ``fits`` says.
    """
    device, stream = tensors[0].device, None
    if device.type != "cpu":
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            if fits(tensors):
                _captured.append(Table(tensors))
                return _captured[-1]
            return None
        stream = device.index, torch.get_device_module(device).current_stream(device).stream_id
    try:
        starts = tuple(map(Tensor.data_ptr, tensors))
    except RuntimeError:  # traced by a transform of torch.func
        return None
    key = stream, starts, tuple(map(Tensor.numel, tensors)), tuple([x.dtype for x in tensors])
    if key in _tables:
        _tables.move_to_end(key)
    elif fits(tensors):
        _tables[key] = Table(tensors)
        if len(_tables) > KEPT:
            _tables.popitem(last=False)
    return _tables.get(key)
