"""Norms of single tensors that are split over a mesh: the partial norms of their parts, merged along its dimensions."""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

from gradclip._partial import NormPartial, merge_elements
from gradclip.backends.torch.ops._ownership import Layout, ranks_in
from gradclip.backends.torch.ops._ranks import Ranks


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


def merged_along(scope: Scope, local: NormPartial, tensors: Sequence[Tensor]) -> NormPartial:
    """Return the partial norms of whole tensors, given those of this rank's parts: a batch of one scope.

    Raises
    ------
    ValueError
        On all ranks of the mesh, if their tensors differ; on a device, from which nothing is read back, it is not
        checked.
    """
    if scope.mesh.device_type == "cpu":
        _check_alike(scope, local.ord, tensors)
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


def _check_alike(scope: Scope, ord: float, tensors: Sequence[Tensor]) -> None:
    """Check that all ranks have as many tensors, of the same shapes in the same order: parts merge by position."""
    groups = tuple(scope.mesh.get_group(dim) for dim in scope.dims)
    shapes = zlib.crc32(repr([tuple(x.shape) for x in tensors]).encode())
    told = torch.tensor([float(len(tensors)), ord, float(shapes)], dtype=torch.float64)
    found = Ranks(groups, scope.ranks).gathered(told).tolist()
    if any(row != found[0] for row in found):
        each = ", ".join(f"{number:.0f} (order {order:g})" for number, order, _ in found)
        raise ValueError(
            f"the ranks of a mesh have different DTensors on it, or want norms of different orders: {each}, expected "
            "the same parameters in the same order on all, also those without a gradient; nothing was written on any "
            "rank"
        )
