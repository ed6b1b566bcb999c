"""``Ops`` for gradients on a mesh of devices: ``DTensor``, as FSDP2 and tensor parallelism use it.

Every rank works on its own parts. Their partial norms, two numbers for each mesh, are gathered and merged in the order
of the ranks. So all ranks get the same bits, and no gradient is sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from gradclip._coefficient import Coefficient
from gradclip._decision import Decision, Rule, decide_by_arrays
from gradclip._partial import NormPartial, merge_elements
from gradclip._types import AnyScalar, Axes
from gradclip.backends.torch.ops._device import TensorOps


@dataclass(frozen=True, slots=True)
class Scope:
    """Where the parts of a tensor are: a mesh, and the dimensions of the mesh along which the tensor is split.

    Parameters
    ----------
    mesh : DeviceMesh or None
        The mesh of the tensor; None for a plain tensor.
    dims : tuple of int
        The dimensions of the mesh along which the tensor is split. Along the other dimensions, all ranks have the same
        part, which counts once.
    """

    mesh: Any = None
    dims: tuple[int, ...] = ()

    def merged(self, local: NormPartial) -> NormPartial:
        """Return the partial norm of whole tensors, given that of this rank's parts: 0-d, or a batch."""
        values = torch.stack([local.scale, local.total])
        home = values.device
        for dim in self.dims:
            values = values.to(self.mesh.device_type)
            everyone = [torch.empty_like(values) for _ in range(self.mesh.size(dim))]
            distributed.all_gather(everyone, values, group=self.mesh.get_group(dim))
            scales, totals = torch.stack(everyone, dim=1)
            whole = merge_elements(NormPartial(scales, totals, local.ord, local.dtype), axis=0)
            values = torch.stack([whole.scale, whole.total])
        scale, total = values.to(home)
        return NormPartial(scale, total, local.ord, local.dtype)


def is_distributed(x: object) -> bool:
    """Whether a tensor is a DTensor."""
    return hasattr(x, "device_mesh") and hasattr(x, "placements")


def whole_of(x: Any) -> Tensor:
    """Return the whole of a DTensor on each rank."""
    whole: Tensor = x.full_tensor()
    return whole


def part_of(x: Any) -> Tensor:
    """Return this rank's part of a tensor, in the same memory."""
    part: Tensor = x.to_local() if is_distributed(x) else x
    return part


def scope_of(x: Any, path: str) -> Scope:
    """Return where the parts of a tensor are.

    Raises
    ------
    ValueError
        If a placement is Partial: the tensor is a sum over the mesh that has not been computed.
    """
    if is_distributed(x) and any(placement.is_partial() for placement in x.placements):
        raise ValueError(
            f"{path} has placements {x.placements}, expected Shard and Replicate: a sum that is yet to be made has "
            "no norm; redistribute the gradient first"
        )
    return cut(x)


def cut(x: Any) -> Scope:
    """Return where the parts of a tensor are, or would be of its gradient."""
    if not is_distributed(x):
        return Scope()
    return Scope(x.device_mesh, tuple(i for i, placement in enumerate(x.placements) if not placement.is_replicate()))


class ShardedOps:
    """The operations of ``Ops`` for this rank's parts of tensors.

    Parameters
    ----------
    here : TensorOps
        The operations for the parts themselves.
    scopes : sequence of Scope
        The scope of each leaf.
    every : sequence of Scope
        All scopes, in the order in which they are merged. It must be the same on every rank, also on a rank that has no
        gradient for a leaf. Otherwise other ranks would wait for this rank forever.
    """

    def __init__(self, here: TensorOps, scopes: Sequence[Scope], every: Sequence[Scope]) -> None:
        self._here, self._scopes, self._every = here, scopes, every

    def decide(self, leaves: Sequence[Tensor], rule: Rule) -> Decision:
        """Return the norm of all whole tensors laid end to end and the coefficient."""
        return decide_by_arrays(self.partial(leaves, rule.ord), rule)

    def apart(self, leaves: Sequence[Tensor]) -> bool:
        """Whether it is known that no two elements of leaves share memory."""
        return self._here.apart(leaves)

    def partial(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return the partial norm of all whole tensors."""
        merged: NormPartial | None = None
        for scope in self._every:
            mine = [x for x, other in zip(leaves, self._scopes, strict=True) if other == scope]
            whole = scope.merged(self._here.partial(mine, ord) if mine else _nothing(leaves, ord))
            merged = whole if merged is None else merged.merge(whole)
        assert merged is not None  # there are leaves, and so there are scopes
        return merged

    def partials(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return one partial norm for each whole tensor."""
        local = self._here.partials(leaves, ord)
        scale, total = local.scale.clone(), local.total.clone()
        for scope in dict.fromkeys(self._scopes):
            of = [i for i, other in enumerate(self._scopes) if other == scope]
            whole = scope.merged(NormPartial(scale[of], total[of], ord, local.dtype))
            scale[of], total[of] = whole.scale, whole.total
        return NormPartial(scale, total, ord, local.dtype)

    def partial_along(self, leaf: Tensor, ord: float, axes: Axes) -> NormPartial:
        """Raise: a slice of a whole tensor may lie on several ranks."""
        raise NotImplementedError(_NO_SLICES)

    def scale(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> list[Tensor]:
        """Return each part times its tensor's coefficient."""
        return self._here.scale(leaves, coefficients)

    def scale_(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each part by its tensor's coefficient in place."""
        self._here.scale_(leaves, coefficients)

    def scaled_sum(self, leaf: Tensor, coefficient: Coefficient) -> Tensor:
        """Raise: an example of a whole tensor may lie on several ranks."""
        raise NotImplementedError(_NO_SLICES)

    def clamp(self, leaves: Sequence[Tensor], low: AnyScalar, high: AnyScalar) -> list[Tensor]:
        """Return each part with its elements moved into the bounds."""
        return self._here.clamp(leaves, low, high)

    def clamp_(self, leaves: Sequence[Tensor], low: AnyScalar, high: AnyScalar) -> None:
        """Move the elements of each part into the bounds in place."""
        self._here.clamp_(leaves, low, high)


_NO_SLICES = "the parts of a DTensor have no slices of their own; pass plain tensors"


def _nothing(leaves: Sequence[Tensor], ord: float) -> NormPartial:
    """Return a zero partial norm on the other leaves' device."""
    one = leaves[0].new_ones((), dtype=torch.float64) if leaves else torch.ones((), dtype=torch.float64)
    return NormPartial(one, one * 0, ord, torch.float32)
