"""Sums that are yet to be made: gradients with a ``Partial`` placement, as sequence parallelism leaves them.

Each rank holds a summand, so no rank's part has the norm. For the norm, the sums are made of a copy, all in one
all-reduce. The gradients keep their placement, and are multiplied as they are: the coefficient times each summand is
the coefficient times the sum.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from gradclip.backends.torch.ops._exchange import Pending
from gradclip.backends.torch.ops._ownership import pending_dims, slice_of

_LINEAR = ("sum", "avg")


def pending_of(grads: Sequence[Any], paths: Sequence[str]) -> Pending:
    """Return how many sums are yet to be made, and with which ranks.

    Raises
    ------
    ValueError
        If a reduction is not a sum, or if sums are over different meshes.
    """
    scopes = {}
    for x, path in zip(grads, paths, strict=True):
        reductions = {str(x.placements[i].reduce_op) for i in pending_dims(x)}
        if not reductions <= {*_LINEAR}:
            raise ValueError(
                f"{path} has placements {x.placements}, expected Shard, Replicate or a Partial sum; redistribute the "
                "gradient first"
            )
        scopes[x.device_mesh, pending_dims(x)] = path
    if len(scopes) > 1:
        raise ValueError(
            f"{' and '.join(scopes.values())} are Partial over different ranks, expected one mesh; redistribute one of "
            "them first"
        )
    if not scopes:
        return Pending()
    mesh, dims = next(iter(scopes))
    ranks = slice_of(mesh.mesh, mesh.get_coordinate(), dims)
    return Pending(len(ranks), min(ranks), sum(x.to_local().numel() for x in grads))


def summed(grads: Sequence[Any]) -> list[Tensor]:
    """Return this rank's parts of the sums, as new tensors of float64 or complex128."""
    mesh, dims = grads[0].device_mesh, pending_dims(grads[0])
    parts = [x.to_local() for x in grads]
    flat = [torch.view_as_real(x.resolve_conj()).reshape(-1) if x.is_complex() else x.reshape(-1) for x in parts]
    whole = torch.cat([x.to(_wide(x)) for x in flat])
    for dim in dims:
        distributed.all_reduce(whole, group=mesh.get_group(dim))
    made = []
    for x, piece in zip(grads, whole.split([x.numel() for x in flat]), strict=True):
        for dim in dims:
            if str(x.placements[dim].reduce_op) == "avg":
                piece = piece / mesh.size(dim)
        made.append(torch.view_as_complex(piece.view(-1, 2)) if x.is_complex() else piece)
    return made


def _wide(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64


def refuse_pending(grads: Sequence[Any], paths: Sequence[str]) -> None:
    """Raise for sums that are yet to be made, where only the sum of all ranks would do."""
    for x, path in zip(grads, paths, strict=True):
        if pending_dims(x):
            raise ValueError(
                f"{path} has placements {x.placements}, expected Shard and Replicate: a sum that is yet to be made has "
                "no norm or bound of its own; redistribute the gradient first"
            )
