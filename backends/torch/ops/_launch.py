"""Launches of the kernels in Triton: one for all leaves of a dtype, and no write if nothing is clipped.

They work on devices that Triton compiles for; Triton is part of PyTorch's builds for GPUs. A program (Triton's word for
a block of threads) works on one piece of one leaf. It finds the piece in a table of addresses, which is kept while the
tensors stay the same. The kernels do the same as those in backends/cupy/kernels.cu, which has more comments.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from struct import Struct
from typing import Any

import torch
from torch import Tensor

from gradclip._array_ops import limited
from gradclip._coefficient import Coefficient
from gradclip._decision import Decision, Rule
from gradclip._partial import NormPartial
from gradclip._types import AnyScalar
from gradclip.backends.torch.ops import _triton_kernels
from gradclip.backends.torch.ops._triton_table import Table

_ORDERS = {math.inf: 0, 1.0: 1, 2.0: 2}
"""The kernels' code for each order of norm. Code 3 is for any other order, which is passed as a number."""

_HIGHEST = 4.0
"""The highest order for which powers of all float32 numbers fit into float64."""

_kernels: Any = _triton_kernels  # whose language is not typed

_TYPES = {
    torch.float16: _kernels.tl.float16,
    torch.bfloat16: _kernels.tl.bfloat16,
    torch.float32: _kernels.tl.float32,
    torch.float64: _kernels.tl.float64,
}
_BLOCK = 4096  # elements that a program works on at a time: 16 for each of 256 threads
_MERGED = 1024  # partial norms that the merging program reads at a time; with many, it needs few turns
_WARPS = 8
_NUMBER, _INTEGER = Struct("d"), Struct("q")


def suits(tensors: Sequence[Tensor]) -> bool:
    """Return whether the kernels can read tensors: real ones without gaps, on one device."""
    if not {x.dtype for x in tensors} <= _TYPES.keys() or len({x.device for x in tensors}) > 1:
        return False
    return all(map(_is_dense, tensors))


def has_order(table: Table, ord: float) -> bool:
    """Return whether there is a kernel for this order: other orders need dtypes whose powers fit into float64."""
    return ord in _ORDERS or (ord <= _HIGHEST and torch.float64 not in table.dtypes)


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(x)


def partials(table: Table, ord: float) -> Tensor:
    """Return (scale, total) of each tensor's norm, which is scale · total^(1/ord): float64, of shape (n, 2)."""
    with _on(table.device):
        _partials(table, ord)
        out = torch.empty((len(table.ranges), 2), dtype=torch.float64, device=table.device)
        _kernels.merge_kernel[(len(table.ranges),)](
            table.parts, table.ranges, out, ORDER=_ORDERS.get(ord, 3), BLOCK=256, num_warps=2
        )
    return out


def decide(table: Table, rule: Rule) -> tuple[Decision, NormPartial]:
    """Return the decision for all tensors together, and their partial norm."""
    result, flags = torch.empty_like(table.result), torch.empty_like(table.flags)
    with _on(table.device):
        _partials(table, rule.ord)
        norm = _finish(table, rule, result, flags)
    scale, total, divisor, factor = result.unbind()
    changed, zeroed = flags.unbind()
    c = Coefficient(divisor, factor, changed, zeroed if rule.zero else None)
    return Decision(norm, c, total), NormPartial(scale, total, rule.ord, table.norm_dtype)


def scale_(table: Table, divisor: Tensor, factor: Tensor, changed: Tensor, zeroed: Tensor | None = None) -> None:
    """Multiply tensors in place by factor / divisor where ``changed``, and make them zero where ``zeroed``.

    The numbers, float64 and boolean on the tensors' device, are 0-d for all tensors or of shape (n,), one for each.
    """
    with _on(table.device):
        _scale(table, divisor, factor, changed, zeroed, each=factor.ndim > 0)


def clamp_(table: Table, low: float, high: float) -> None:
    """Move the elements of tensors into the bounds in place. Elements within the bounds are not written."""
    with _on(table.device):
        for group in table.groups:
            bounds = (float(torch.tensor(limited(b, group.dtype), dtype=group.dtype)) for b in (low, high))
            _kernels.clamp_kernel[(group.blocks,)](
                group.pieces, *map(_bits, bounds),
                TYPE=_TYPES[group.dtype], ALIGNED=group.aligned, BLOCK=_BLOCK, num_warps=_WARPS,
            )  # fmt: skip


def _partials(table: Table, ord: float) -> None:
    for group in table.groups:
        pairs = ord in (1, 2) and _pairs(table.device, group.dtype)
        _kernels.partials_kernel[(group.blocks,)](
            group.pieces, group.parts, _bits(ord), ORDER=_ORDERS.get(ord, 3), PAIRS=pairs,
            TYPE=_TYPES[group.dtype], ALIGNED=group.aligned, BLOCK=_BLOCK, num_warps=_WARPS,
        )  # fmt: skip


def _finish(table: Table, rule: Rule, result: Tensor, flags: Tensor) -> Tensor:
    """Merge the partial norms of all pieces, write ``result`` and ``flags``, and return the norm."""
    norm = torch.empty((), dtype=table.norm_dtype, device=table.device)
    numbers = rule.numbers()
    given = any(isinstance(number, Tensor) for number in numbers)
    on_device = _stacked(numbers, table.device) if given else table.parts
    bits = [_bits(rule.ord), *(0 if given else _bits(number) for number in numbers)]
    _kernels.finish_kernel[(1,)](
        table.parts, table.count, on_device, *bits, result, norm, flags,
        ORDER=_ORDERS.get(rule.ord, 3), GIVEN=given, ZERO=rule.zero, BLOCK=_MERGED, num_warps=8,
    )  # fmt: skip
    return norm


def _scale(
    table: Table, divisor: Tensor, factor: Tensor, changed: Tensor, zeroed: Tensor | None, *, each: bool
) -> None:
    for group in table.groups:
        _kernels.scale_kernel[(group.blocks,)](
            group.pieces, divisor, factor, changed, changed if zeroed is None else zeroed, int(each),
            ZERO=zeroed is not None, TYPE=_TYPES[group.dtype], ALIGNED=group.aligned, BLOCK=_BLOCK, num_warps=_WARPS,
        )  # fmt: skip


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which a device is the current one, because Triton launches on the current device."""
    if device.type == "cpu" or (module := torch.get_device_module(device)).current_device() == device.index:
        return nullcontext()
    context: AbstractContextManager[Any] = module.device(device)
    return context


def _stacked(numbers: Sequence[AnyScalar], device: torch.device) -> Tensor:
    """Return numbers, some of them tensors, as one tensor on a device."""
    wide = [x if isinstance(x, Tensor) else torch.full((), x, dtype=torch.float64, device=device) for x in numbers]
    return torch.stack([x.to(device, torch.float64) for x in wide])


def _bits(number: float) -> int:
    """Return the bits of a float64 as an integer."""
    bits: int = _INTEGER.unpack(_NUMBER.pack(number))[0]
    return bits


def _pairs(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether to sum in compensated float32, because float64 is slow: on all GPUs but those for data centres."""
    if device.type != "cuda" or torch.version.hip or dtype == torch.float64:
        return False
    return torch.cuda.get_device_capability(device) not in {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}
