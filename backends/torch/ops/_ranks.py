"""A group of ranks, and the exchange of a few numbers among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks over which the parts of gradients are spread.

    Parameters
    ----------
    groups : tuple of ProcessGroup or None
        The process groups along which numbers are gathered, one after the other: one, or one for each dimension of a
        mesh. None stands for the default group.
    members : tuple of int
        The ranks in the order of the gathered rows, as numbers in the default group.
    """

    groups: tuple[Any, ...]
    members: tuple[int, ...]

    def gathered(self, row: Tensor) -> Tensor:
        """Return the rows of all ranks, of shape (number of ranks, numel of a row), the same on all ranks."""
        rows = row.unsqueeze(0)
        for group in self.groups:
            here = rows.to(_device_for(group, rows.device)).contiguous()
            found = [torch.empty_like(here) for _ in range(distributed.get_world_size(group))]
            distributed.all_gather(found, here, group=group)
            rows = torch.cat(found)
        return rows

    def gathered_in_graph(self, row: Tensor) -> Tensor:
        """Return the same by functional collectives, which are operations of a graph that is being compiled."""
        rows, home = row.unsqueeze(0), row.device
        for group in self.groups:
            group = distributed.group.WORLD if group is None else group
            gathered = _all_gather_in_graph()(rows.to(_device_for(group, home)), 0, group)
            rows = gathered.to(home)
        return rows

    def gathered_objects(self, value: object) -> list[Any]:
        """Return what all ranks passed, in the order of ``members``: for errors and reports, because it is slow."""
        found = [value]
        for group in self.groups:
            everyone: list[Any] = [None] * distributed.get_world_size(group)
            distributed.all_gather_object(everyone, found, group=group)
            found = [x for some in everyone for x in some]
        return found


def _all_gather_in_graph() -> Any:
    """Return PyTorch's functional all-gather along a dimension, by its name in this version."""
    from torch.distributed import _functional_collectives as functional

    return getattr(functional, "all_gather_single", None) or functional.all_gather_tensor


def is_initialized() -> bool:
    """Whether this process is a rank, be it the only one."""
    return distributed.is_available() and distributed.is_initialized()


def everyone() -> Ranks:
    """Return all ranks of the default group."""
    return Ranks((None,), tuple(range(distributed.get_world_size())))


def ranks_of(group: Any) -> Ranks:
    """Return the ranks of a ProcessGroup or a DeviceMesh.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If this rank is not one of them.
    """
    if hasattr(group, "mesh") and hasattr(group, "get_group"):
        found = _ranks_of_mesh(group)
    elif isinstance(group, distributed.ProcessGroup):
        found = Ranks((group,), tuple(distributed.get_process_group_ranks(group)))
    elif group is distributed.GroupMember.NON_GROUP_MEMBER:
        found = Ranks((), ())
    else:
        raise TypeError(
            f"group is {group!r}, expected a ProcessGroup or a DeviceMesh; pass torch.distributed.group.WORLD for all "
            "ranks"
        )
    rank = distributed.get_rank()
    if rank not in found.members:
        raise ValueError(
            f"group has the ranks {list(found.members)}, expected one that holds this rank, {rank}; call the function "
            "on the ranks of the group only, or pass the group of this rank"
        )
    return found


def _ranks_of_mesh(mesh: Any) -> Ranks:
    if mesh.size() == distributed.get_world_size():
        return everyone()
    backwards = mesh.mesh.permute(*reversed(range(mesh.ndim)))  # the last dimension, gathered last, varies least
    return Ranks(tuple(mesh.get_group(i) for i in range(mesh.ndim)), tuple(backwards.flatten().tolist()))


def _device_for(group: Any, device: torch.device) -> torch.device:
    """Return a device on which a group can gather: the given one, or another that its backend needs."""
    backends = dict(part.split(":") for part in str(distributed.get_backend_config(group)).split(",") if ":" in part)
    if not backends or device.type in backends:
        return device
    return torch.device(next(iter(backends)))


def named(ranks: Sequence[int]) -> str:
    """Return ranks as text: "rank 3", "ranks 0, 1"."""
    return f"rank{'s' * (len(ranks) != 1)} {', '.join(map(str, ranks))}"
