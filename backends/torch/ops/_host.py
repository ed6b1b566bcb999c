"""``Ops`` for tensors in the host's memory: `HostOps`, with `TensorMemory`, which knows where tensors are."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from gradclip import _native
from gradclip._calls import quiet
from gradclip._host_memory import Runs
from gradclip._host_ops import HostOps
from gradclip._host_sums import sums_of
from gradclip._memory import NDArray
from gradclip._tensor_memory import tensor_memory
from gradclip.backends.torch.ops._device import DEVICE

_MEMORY = tensor_memory(cast("Any", torch))  # a module is hashable


def host_ops() -> HostOps:
    """Return the operations for CPU tensors."""
    return HostOps(DEVICE, _MEMORY)


def on_host(leaves: Sequence[Tensor]) -> bool:
    """Whether all leaves are plain tensors, of no subclass, in the host's memory, and not traced by a compiler."""
    return _MEMORY.holds(leaves)


def plain_host_ops(leaves: Sequence[Tensor]) -> HostOps | None:
    """Return the operations for distinct, plain, contiguous CPU tensors, or None."""
    runs = _runs(leaves)
    if runs is None or len(set(runs.table.addresses)) < len(leaves):  # tensors of one address may be tied
        return None
    return HostOps(DEVICE, _MEMORY, leaves, runs)


@quiet
def host_norms(tensors: Sequence[Tensor | None]) -> NDArray | None:
    """Return the Euclidean norm of each, float64; None unless all are plain, contiguous CPU tensors."""
    kernels, runs = _native.kernels(), _runs(tensors)
    if kernels is None or runs is None:
        return None
    scales, totals = sums_of(kernels, runs.table, 2.0, _MEMORY.threads())
    norms: NDArray = np.sqrt(totals) * scales
    return norms


def _runs(tensors: Sequence[Tensor | None]) -> Runs | None:
    """Return where plain, contiguous CPU tensors are; None if there is anything else."""
    return _MEMORY.alike(tensors) if _MEMORY.are_plain(tensors) else None
