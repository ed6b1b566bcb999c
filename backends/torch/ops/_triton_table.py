"""The table that the kernels in Triton read: the pieces of tensors, with their addresses."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradclip import _dtypes
from gradclip._limits import KEPT_TABLES
from gradclip._memory import ranges_are_apart
from gradclip._pieces import cut

_COLUMNS = 3  # address, number of elements, tensor
_ACCESS_NBYTES = 16  # a thread reads so many bytes at a time, if they are aligned
_tables: OrderedDict[Any, "Table"] = OrderedDict()
_captured: "list[Table]" = []  # tables that captured graphs read; kept until the process ends


class Launch(NamedTuple):
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
    ranges : Tensor
        The first piece of each tensor, and the one after its last.
    launches : list of Launch
        One for each dtype and alignment.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.device = tensors[0].device
        self.dtypes = {x.dtype for x in tensors}
        self._starts, self._nbytes = [x.data_ptr() for x in tensors], [x.nbytes for x in tensors]
        kinds = [(x.dtype, start % _ACCESS_NBYTES == 0) for x, start in zip(tensors, self._starts, strict=True)]
        codes = {kind: code for code, kind in enumerate(dict.fromkeys(kinds))}
        cuts = cut(self._nbytes, [codes[kind] for kind in kinds])
        addresses = np.array(self._starts)[cuts.leaf] + cuts.start
        counts = cuts.nbytes // np.array([x.element_size() for x in tensors])[cuts.leaf]
        rows = np.stack([addresses, counts, cuts.leaf], axis=1)
        self.count = len(rows)
        host = torch.from_numpy(np.concatenate([rows, cuts.ranges], axis=None))
        # A captured graph copies from this memory whenever it runs, so it is kept as long as the table.
        self._host = host if self.device.type == "cpu" else host.pin_memory()
        memory = self._host.to(self.device, non_blocking=True)
        self.ranges = memory[rows.size :].view(-1, 2)
        self.parts = torch.empty((max(1, self.count), 2), dtype=torch.float64, device=self.device)
        names, pieces = list(codes), memory[: rows.size].view(-1, _COLUMNS)
        self.launches = [
            Launch(*names[code], blocks, pieces[begin : begin + blocks], self.parts[begin : begin + blocks])
            for code, begin, blocks in cuts.groups
        ]

    @cached_property
    def norm_dtype(self) -> torch.dtype:
        """The dtype of the tensors' norm."""
        return torch.float64 if any(map(_dtypes.is_double, self.dtypes)) else torch.float32

    @cached_property
    def apart(self) -> bool:
        """Whether no two of the tensors share memory."""
        return ranges_are_apart(self._starts, self._nbytes)


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
        if len(_tables) > KEPT_TABLES:
            _tables.popitem(last=False)
    return _tables.get(key)
