"""Launches of the kernels in Triton: one for all tensors of a dtype. Nothing is written if nothing is clipped.

They run on devices that Triton compiles for; Triton is part of PyTorch's builds for GPUs. A program (Triton's word for
a block of threads) works on one piece of one tensor, whose address it reads from a table. The kernels do the same as
those in backends/cupy/kernels.cu, which has more comments.
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
from gradclip.backends.torch.ops._limits import (
    FLOAT64_CAPABILITIES,
    LEAF_PARTIALS,
    LEAF_WARPS,
    MERGED_PARTIALS,
    PROGRAM_NUMEL,
    PROGRAM_WARPS,
)
from gradclip.backends.torch.ops._triton_table import Launch, Table

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
            table.parts, table.ranges, out, ORDER=_ORDERS.get(ord, 3), BLOCK=LEAF_PARTIALS, num_warps=LEAF_WARPS
        )
    return out


def decide(table: Table, rule: Rule) -> tuple[Decision, NormPartial]:
    """Return the decision for all tensors together, and their partial norm."""
    result = torch.empty(4, dtype=torch.float64, device=table.device)  # scale, total, divisor, factor
    flags = torch.empty(2, dtype=torch.bool, device=table.device)  # changed, zeroed
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
        zero = zeroed is not None
        numbers = divisor, factor, changed, zeroed if zero else changed, int(factor.ndim > 0)
        for launch in table.launches:
            _run(_kernels.scale_kernel, launch, *numbers, ZERO=zero)


def clamp_(table: Table, low: float, high: float) -> None:
    """Move the elements of tensors into the bounds in place. Elements within the bounds are not written."""
    with _on(table.device):
        for launch in table.launches:
            bounds = (float(torch.tensor(limited(b, launch.dtype), dtype=launch.dtype)) for b in (low, high))
            _run(_kernels.clamp_kernel, launch, *map(_bits, bounds))


def _partials(table: Table, ord: float) -> None:
    for launch in table.launches:
        pairs = ord in (1, 2) and _pairs(table.device, launch.dtype)
        order = _ORDERS.get(ord, 3)
        _run(_kernels.partials_kernel, launch, launch.parts, _bits(ord), ORDER=order, PAIRS=pairs)


def _finish(table: Table, rule: Rule, result: Tensor, flags: Tensor) -> Tensor:
    """Merge the partial norms of all pieces, write ``result`` and ``flags``, and return the norm."""
    norm = torch.empty((), dtype=table.norm_dtype, device=table.device)
    numbers = rule.numbers()
    given = any(isinstance(number, Tensor) for number in numbers)
    on_device = _stacked(numbers, table.device) if given else table.parts
    bits = [_bits(rule.ord), *(0 if given else _bits(number) for number in numbers)]
    _kernels.finish_kernel[(1,)](
        table.parts, table.count, on_device, *bits, result, norm, flags,
        ORDER=_ORDERS.get(rule.ord, 3), GIVEN=given, ZERO=rule.zero, BLOCK=MERGED_PARTIALS, num_warps=PROGRAM_WARPS,
    )  # fmt: skip
    return norm


def _run(kernel: Any, launch: Launch, *arguments: object, **constants: object) -> None:
    """Launch one program for each piece. Constants are known when the kernel is compiled."""
    kernel[(launch.blocks,)](
        launch.pieces, *arguments, **constants,
        TYPE=_TYPES[launch.dtype], ALIGNED=launch.aligned, BLOCK=PROGRAM_NUMEL, num_warps=PROGRAM_WARPS,
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
    return torch.cuda.get_device_capability(device) not in FLOAT64_CAPABILITIES
