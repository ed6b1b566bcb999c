"""``Ops`` for tensors in the host's memory: `HostOps`, and `TorchMemory`, which tells it about tensors."""

from collections.abc import Sequence
from functools import cache
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from gradclip import _namespace as ns
from gradclip._host_ops import HostOps, Runs, code_of, runs_of
from gradclip._native import Table
from gradclip.backends.torch.ops._device import DEVICE, in_memory_order, is_lazy

_TYPES = {Tensor, torch.nn.Parameter}
_is_cpu, _dtype, _nbytes = attrgetter("is_cpu"), attrgetter("dtype"), attrgetter("nbytes")


class TorchMemory:
    """`gradclip._host_ops.Memory` for CPU tensors."""

    def runs(self, leaves: Sequence[Tensor]) -> Runs | None:
        """Return where tensors are in memory, or None if a transform of torch.func traces them.

        A tensor whose elements are the conjugates or negatives of what is in memory is included: it has the same norm,
        and may be multiplied in memory.
        """
        try:
            return _alike(leaves) or runs_of(map(_place, leaves))
        except RuntimeError:  # there are no addresses
            return None

    def joined(self, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the tensors themselves: to find the address of one takes no longer than to copy it."""
        return leaves

    def threads(self) -> int:
        """Return how many threads the kernels may use."""
        return torch.get_num_threads()

    def numbers(self, values: Any, double: bool) -> Tensor:
        """Return a number, or numbers, as a tensor of float64 or float32."""
        dtype = self.dtype(double)
        if isinstance(values, float) and (double or abs(values) < _WITHIN_FLOAT32):
            return torch.scalar_tensor(values, dtype=dtype, device=_CPU)
        return torch.tensor(values, dtype=torch.float64, device=_CPU).to(dtype)

    def dtype(self, double: bool) -> torch.dtype:
        """Return the dtype of such a tensor."""
        return torch.float64 if double else torch.float32

    def like(self, leaf: Tensor) -> Tensor:
        """Return a new tensor of the shape, dtype and order of axes of another."""
        return torch.empty_like(leaf)

    def in_order(self, leaf: Tensor) -> bool:
        """Whether the elements of a tensor lie in C's order."""
        return leaf.is_contiguous()

    def is_plain(self, leaves: Sequence[Tensor]) -> bool:
        """Whether the elements of tensors are what lies in memory."""
        return not any(map(is_lazy, leaves))

    def written(self, leaves: Sequence[Tensor]) -> None:
        """Tell autograd that tensors were written to, as PyTorch's own operations in place do."""
        try:
            torch.autograd.graph.increment_version(leaves)
        except RuntimeError:  # tensors of inference mode have no version; versions of the others may increase by 2
            torch.autograd.graph.increment_version([x for x in leaves if not x.is_inference()])


_WITHIN_FLOAT32 = 3e38
"""Larger numbers may be out of float32's range: they become float64 tensors first, because PyTorch refuses others."""

_CPU = torch.device("cpu")

_MEMORY = TorchMemory()


def host_ops() -> HostOps:
    """Return the operations for CPU tensors."""
    return HostOps(DEVICE, _MEMORY)


def on_host(leaves: Sequence[Tensor]) -> bool:
    """Whether all leaves are plain tensors, of no subclass, in the host's memory, and not traced by a compiler."""
    return set(map(type, leaves)) <= _TYPES and all(map(_is_cpu, leaves)) and not torch.compiler.is_compiling()


def plain_host_ops(leaves: Sequence[Tensor]) -> HostOps | None:
    """Return the operations for distinct, plain CPU tensors of one dtype that the kernels can read, else None."""
    if not on_host(leaves):
        return None
    try:
        runs = _alike(leaves)
    except RuntimeError:  # sparse, or traced
        return None
    if runs is None or len(set(runs.table.addresses)) < len(leaves):  # tensors of one address may be tied
        return None
    return HostOps(DEVICE, _MEMORY, leaves, runs)


def _alike(leaves: Sequence[Tensor]) -> Runs | None:
    """Return where tensors are in memory, in few calls, if all have one dtype and are contiguous; else None."""
    dtypes = set(map(_dtype, leaves))
    code = _code(dtypes.pop()) if len(dtypes) == 1 else None
    if code is None or not all(map(Tensor.is_contiguous, leaves)):
        return None
    addresses, nbytes = list(map(Tensor.data_ptr, leaves)), list(map(_nbytes, leaves))
    table = Table(addresses, nbytes, bytes([code[0]]) * len(leaves))
    return Runs(table, range(len(leaves)), (), code[1])


def _place(x: Tensor) -> tuple[int, int, tuple[int, bool]] | None:
    """Return a tensor's address, nbytes and dtype, or None if the kernels cannot read it."""
    code, flat = _code(x.dtype), in_memory_order(x)
    return None if code is None or flat is None else (flat.data_ptr(), flat.nbytes, code)


@cache
def _code(dtype: torch.dtype) -> tuple[int, bool] | None:
    return code_of(ns.dtype_name(dtype))
