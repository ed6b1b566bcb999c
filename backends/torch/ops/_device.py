"""``Ops`` for PyTorch on any device, by PyTorch's own operations. The host reads no value back.

No Python branch depends on a value, so this also runs under ``torch.compile`` and the transforms of ``torch.func``. The
module ``_host`` has faster operations for the host's memory.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from gradclip import _dtypes
from gradclip import _namespace as ns
from gradclip._array_ops import ArrayOps, bounds_for, limited
from gradclip._chunks import boxes
from gradclip._coefficient import Coefficient
from gradclip._limits import DEVICE_CHUNK_NUMEL, HOST_CHUNK_NUMEL
from gradclip._memory import ranges_are_apart
from gradclip._partial import NormPartial, stack
from gradclip._tensor_memory import in_memory_order, is_lazy
from gradclip._types import AnyScalar
from gradclip.backends.torch.ops._limits import FOREACH_BELOW_NUMEL, JOIN_UP_TO_NUMEL, JOINED_NUMEL

_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)
STORED = dict.fromkeys(_FLOAT8, torch.float32) | {torch.complex32: torch.complex64}
"""Dtypes for which PyTorch has few operations, each with the dtype that leaves are converted to for arithmetic."""


class TorchOps(ArrayOps):
    """The operations of ``Ops`` for tensors on any device; ``ArrayOps`` has those that are not here."""

    def apart(self, leaves: Sequence[Tensor]) -> bool:
        """Whether it is certain, without much work, that no two elements of leaves share memory."""
        return apart(leaves)

    def partials(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return one partial norm for each leaf; leaves whose powers fit into float64 share one foreach call."""
        fits = [
            i
            for i, x in enumerate(leaves)
            if 0 < x.numel() < FOREACH_BELOW_NUMEL and self._holds(x, ord) and has_memory(x)
        ]
        batch = _norms([leaves[i] for i in fits], ord) if fits else None
        if batch is not None and len(fits) == len(leaves):
            return batch
        found = {i: _one(batch, k) for k, i in enumerate(fits)} if batch else {}
        return stack([found[i] if i in found else self._whole(x, ord) for i, x in enumerate(leaves)])

    def scale_(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place, in float64 where the device has it, and round once."""
        factors: dict[tuple[int, torch.device], tuple[Coefficient, Tensor]] = {}  # usually there is one for all leaves
        small: dict[tuple[int, torch.device, torch.dtype], list[Tensor]] = {}
        for x, c in zip(leaves, coefficients, strict=True):
            key = id(c), x.device
            if key not in factors:
                there = self._there(c, x)
                factors[key] = there, torch.where(there.changed, there.factor / there.divisor, 1.0)
            there, factor = factors[key]
            if factor.dim() or _dtypes.is_double(x.dtype) or not _dtypes.is_double(factor.dtype):
                super().scale_([x], [there])  # one for each unit, or one that may be out of range as a single number
            elif not _in_memory(x) and _joins(x):
                small.setdefault((*key, x.dtype), []).append(x)
            else:
                for part in chunks_of(x):
                    _times_(part, factor, there.zeroed)
        for (c_id, device, _), some in small.items():
            there, factor = factors[c_id, device]
            for group in _groups(some):
                _times_together_(group, factor, there.zeroed)

    def clamp_(self, leaves: Sequence[Tensor], low: AnyScalar, high: AnyScalar) -> None:
        """Move each leaf's elements into the bounds in place."""
        for x in leaves:
            bounds = self._bounds(x, low, high)
            if x.dtype in STORED:
                for part in chunks_of(x):
                    part.copy_(widened(part).clamp_(*bounds))
            else:
                x.clamp_(*bounds)

    def _bounds(self, x: Tensor, low: AnyScalar, high: AnyScalar) -> tuple[AnyScalar, AnyScalar]:
        """Return bounds for a leaf. Numbers stay numbers, because a tensor would have to be copied to the device."""
        if isinstance(low, float) and isinstance(high, float):
            return limited(low, x.dtype), limited(high, x.dtype)
        low, high = bounds_for(self.xp, x, low, high)
        return widened(low), widened(high)

    def _whole(self, x: Tensor, ord: float) -> NormPartial:
        if not x.numel() or x.dtype in STORED:
            return super()._whole(x, ord)
        if ord == math.inf and not x.is_complex():  # a maximum is exact in the leaf's own dtype
            peak = torch.linalg.vector_norm(x, ord).to(self._wide(x))
            return NormPartial(torch.ones_like(peak), peak, ord, _dtypes.norm_dtype(self.xp, x))
        if self._holds(x, ord):
            return _of_norm(torch.linalg.vector_norm(x, ord, dtype=torch.float64), ord)
        return super()._whole(x, ord)

    def _wide(self, x: Tensor) -> torch.dtype:
        return _wide_on(x.device)

    def _holds(self, x: Tensor, ord: float) -> bool:
        """Whether powers of all elements fit into float64, and PyTorch adds them there without a wide copy."""
        narrow = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        return narrow and 1 <= ord <= 4 and self._wide(x) == torch.float64 and not _in_memory(x)


def apart(arrays: Sequence[Tensor]) -> bool:
    """Whether it is certain that no two elements share memory: all are contiguous, and their ranges are disjoint."""
    if torch.compiler.is_compiling():
        return True  # there are no addresses yet
    if not all(map(Tensor.is_contiguous, arrays)):
        return False
    try:
        starts = list(map(Tensor.data_ptr, arrays))
    except RuntimeError:  # traced by a transform of torch.func
        return False
    return ranges_are_apart(starts, [x.nbytes for x in arrays])


DEVICE = TorchOps(ns.namespace([torch.zeros((), device="cpu")]))
"""The one instance: it has no state."""


@cache
def _wide_on(device: torch.device) -> torch.dtype:
    """Return the accumulation dtype of a device."""
    x = torch.empty(0, device=device)
    wide: torch.dtype = ns.wide_dtype(ns.namespace([x]), x)
    return wide


def widened(x: Tensor) -> Tensor:
    """Return a tensor in a dtype that PyTorch has arithmetic for; float8 and complex32 are copied to a wider one."""
    wide = STORED.get(x.dtype)
    return x if wide is None else x.to(wide)


def chunks_of(x: Tensor) -> Iterator[Tensor]:
    """Yield views that make up a tensor: chunks on the host; the whole on devices, whose kernels widen elements."""
    limit = HOST_CHUNK_NUMEL if _in_memory(x) else DEVICE_CHUNK_NUMEL
    if x.numel() <= limit or not (_in_memory(x) or x.dtype in STORED):
        yield x
    elif (flat := in_memory_order(x)) is not None:
        yield from chunks(flat, limit)
    else:
        for key in boxes(tuple(x.shape), limit):
            yield x[key]


def chunks(flat: Tensor, n: int) -> Iterator[Tensor]:
    """Yield views of ``n`` elements of a 1-D tensor; the last may have fewer."""
    return (flat[start : start + n] for start in range(0, flat.numel(), n))


def has_memory(x: Tensor) -> bool:
    """Whether a tensor has an address. It has none while a transform of torch.func traces it."""
    try:
        x.data_ptr()
    except RuntimeError:
        return False
    return True


def _joins(x: Tensor) -> bool:
    """Whether a tensor is small and can be multiplied together with others."""
    return x.numel() <= JOIN_UP_TO_NUMEL and x.dtype not in STORED and has_memory(x) and not is_lazy(x)


def _in_memory(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _norms(leaves: list[Tensor], ord: float) -> NormPartial:
    foreach_norm = torch._foreach_norm  # pyright: ignore[reportPrivateImportUsage]  # torch.nn.utils uses it too
    return _of_norm(torch.stack(foreach_norm(leaves, ord, dtype=torch.float64)), ord)


def _one(batch: NormPartial, i: int) -> NormPartial:
    return NormPartial(batch.scale[i], batch.total[i], batch.ord, batch.dtype)


def _of_norm(norm: Tensor, ord: float) -> NormPartial:
    total = norm if ord == math.inf else norm**ord
    return NormPartial(torch.ones_like(total), total, ord, torch.float32)


def _times_(x: Tensor, factor: Tensor, zeroed: Tensor | None) -> None:
    """Multiply ``x`` in the factor's dtype, which is wider. PyTorch would convert a 0-d factor, so it gets axes."""
    y = widened(x)
    y.mul_(factor.reshape([1] * x.dim()))
    if zeroed is not None:
        y.masked_fill_(zeroed, 0)  # NaN · 0 would be NaN
    if y is not x:
        x.copy_(y)


def _groups(small: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield groups of tensors with at most ``JOINED_NUMEL`` elements."""
    group: list[Tensor] = []
    total = 0
    for x in small:
        if total + x.numel() > JOINED_NUMEL:
            yield group
            group, total = [], 0
        group.append(x)
        total += x.numel()
    yield group


def _times_together_(group: list[Tensor], factor: Tensor, zeroed: Tensor | None) -> None:
    flat = torch.cat([x.reshape(-1) for x in group])
    _times_(flat, factor, zeroed)
    split = torch.split(flat, [x.numel() for x in group])
    parts = [part.view(x.shape) for part, x in zip(split, group, strict=True)]
    torch._foreach_copy_(group, parts)  # pyright: ignore[reportPrivateImportUsage]  # torch.distributed uses it too
