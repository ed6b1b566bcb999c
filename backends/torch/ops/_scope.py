"""Norms of single tensors that are split over a mesh: the partial norms of their parts, merged along its dimensions."""

from typing import Any, NamedTuple

import torch
from torch import distributed

from gradclip._partial import NormPartial, merge_elements
from gradclip.backends.torch.ops._ownership import Layout, ranks_in


class Scope(NamedTuple):
    """Where the parts of a tensor are.

    Parameters
    ----------
    ranks : tuple of int
        The ranks of the mesh: scopes are merged in the order of these, which is the same on all ranks.
    dims : tuple of int
        The dimensions of the mesh along which the tensor is split; none for a plain tensor.
    mesh : DeviceMesh or None
    """

    ranks: tuple[int, ...] = ()
    dims: tuple[int, ...] = ()
    mesh: Any = None


def scope_of(layout: Layout) -> Scope:
    """Return where the parts of tensors of a layout are, or would be of their gradients."""
    if layout.mesh is None or not layout.split:
        return Scope()
    return Scope(ranks_in(layout.mesh), layout.split, layout.mesh)


def merged_along(scope: Scope, local: NormPartial) -> NormPartial:
    """Return the partial norms of whole tensors, given those of this rank's parts: a batch of one scope."""
    values = torch.stack([local.scale, local.total])
    home = values.device
    for dim in scope.dims:
        values = values.to(scope.mesh.device_type)
        everyone = [torch.empty_like(values) for _ in range(scope.mesh.size(dim))]
        distributed.all_gather(everyone, values, group=scope.mesh.get_group(dim))
        scales, totals = torch.stack(everyone, dim=1)
        whole = merge_elements(NormPartial(scales, totals, local.ord, local.dtype), axis=0)
        values = torch.stack([whole.scale, whole.total])
    scale, total = values.to(home)
    return NormPartial(scale, total, local.ord, local.dtype)
