"""Sums that are yet to be made: gradients with a ``Partial`` placement, as sequence parallelism leaves them.

Each rank holds a summand, so no rank's part has the norm. For the norm, the sums are made of a copy, all in one
all-reduce. The gradients keep their placement, and are multiplied as they are: the coefficient times each summand is
the coefficient times the sum.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from gradclip.backends.torch.ops._exchange import Pending
from gradclip.backends.torch.ops._ownership import Layout, grid, slice_of

_LINEAR = ("sum", "avg")


def pending_of(grads: Sequence[Any], layouts: Sequence[Layout], paths: Callable[[], list[str]]) -> Pending:
    """Return how many sums are yet to be made, and with which ranks.

    Raises
    ------
    ValueError
        If a reduction is not a sum, or if sums are over different meshes.
    """
    waiting = [layout for layout in layouts if layout.pending]
    for layout in waiting:
        if not {str(layout.placements[i].reduce_op) for i in layout.pending} <= {*_LINEAR}:
            raise ValueError(
                f"{paths()[layout.which[0]]} has placements {layout.placements}, expected Shard, Replicate or a "
                "Partial sum; redistribute the gradient first"
            )
    scopes = {(layout.mesh, layout.pending): layout.which[0] for layout in waiting}
    if len(scopes) > 1:
        named = " and ".join(paths()[i] for i in scopes.values())
        raise ValueError(f"{named} are Partial over different ranks, expected one mesh; redistribute one of them first")
    if not scopes:
        return Pending()
    mesh, dims = next(iter(scopes))
    ranks = slice_of(grid(mesh), mesh.get_coordinate(), dims)
    return Pending(len(ranks), min(ranks), sum(grads[i].to_local().numel() for i in waiting_of(layouts)))


def waiting_of(layouts: Sequence[Layout]) -> list[int]:
    """Return the positions of the gradients that are sums yet to be made."""
    return sorted(i for layout in layouts if layout.pending for i in layout.which)


def summed(grads: Sequence[Any]) -> list[Tensor]:
    """Return this rank's parts of the sums of some gradients, as new tensors of float64 or complex128."""
    parts = [x.to_local() for x in grads]
    flat = [torch.view_as_real(x.resolve_conj()).reshape(-1) if x.is_complex() else x.reshape(-1) for x in parts]
    whole = torch.cat([x.to(_wide(x)) for x in flat])
    mesh = grads[0].device_mesh
    for dim, placement in enumerate(grads[0].placements):
        if placement.is_partial():
            distributed.all_reduce(whole, group=mesh.get_group(dim))
    made = []
    for x, piece in zip(grads, whole.split([x.numel() for x in flat]), strict=True):
        means = [mesh.size(dim) for dim, p in enumerate(x.placements) if p.is_partial() and str(p.reduce_op) == "avg"]
        mean = piece / math.prod(means)
        made.append(torch.view_as_complex(mean.view(-1, 2)) if x.is_complex() else mean)
    return made


def refuse_pending(layouts: Sequence[Layout], paths: Callable[[], list[str]]) -> None:
    """Raise for sums that are yet to be made, where only the sum of all ranks would do."""
    for layout in layouts:
        if layout.pending:
            raise ValueError(
                f"{paths()[layout.which[0]]} has placements {layout.placements}, expected Shard and Replicate: a sum "
                "that is yet to be made has no norm or bound of its own; redistribute the gradient first"
            )


def _wide(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64
