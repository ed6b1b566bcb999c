"""Which rank counts a part of a gradient: of the ranks that hold the same part, the first.

DTensor says for each dimension of its mesh whether a tensor is split along it (``Shard``), is the same on all of its
ranks (``Replicate``), or is a sum that is yet to be made (``Partial``), which is the same on all once it was made.
Plain tensors say nothing: each rank's counts, unless the caller declares them replicated.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, distributed

from gradclip.backends.torch.ops._ranks import Ranks, everyone, is_initialized


def is_distributed(x: object) -> bool:
    """Whether a tensor is a DTensor."""
    return hasattr(x, "device_mesh") and hasattr(x, "placements")


def part_of(x: Any) -> Tensor:
    """Return this rank's part of a tensor, in the same memory."""
    part: Tensor = x.to_local() if is_distributed(x) else x
    return part


def whole_of(x: Any) -> Tensor:
    """Return the whole of a DTensor on each rank."""
    whole: Tensor = x.full_tensor()
    return whole


def split_dims(x: Any) -> tuple[int, ...]:
    """Return the dimensions of its mesh along which a DTensor is split."""
    return tuple(i for i, p in enumerate(x.placements) if not (p.is_replicate() or p.is_partial()))


def pending_dims(x: Any) -> tuple[int, ...]:
    """Return the dimensions of its mesh along which a DTensor is a sum that is yet to be made."""
    return tuple(i for i, p in enumerate(x.placements) if p.is_partial()) if is_distributed(x) else ()


class Ownership:
    """Who counts which part.

    Parameters
    ----------
    holders : iterable of Tensor
        All parameters or gradients of the call. Their meshes tell along which dimensions of a root mesh this model is
        spread: a tensor that is only on some of these dimensions is the same along the others.
    ranks : Ranks
        The ranks that take part.
    replicated : set of int
        The ``id`` of tensors that are declared the same on all ranks.
    """

    def __init__(self, holders: Iterable[Any], ranks: Ranks, replicated: frozenset[int] = frozenset()) -> None:
        self._ranks, self._replicated = ranks, replicated
        self._used = _used_dims(holders)
        self._seen: dict[tuple[int, tuple[Any, ...]], bool] = {}

    def owns(self, x: Any, path: str) -> bool:
        """Return whether this rank counts its part of a tensor.

        Raises
        ------
        ValueError
            If other parts of the tensor are on ranks that take no part.
        """
        leader = self._ranks.members[0]
        if not is_distributed(x):
            return id(x) not in self._replicated or distributed.get_rank() == leader
        key = id(x.device_mesh), x.placements
        if key not in self._seen:
            self._seen[key] = self._is_first(x, path)
        return self._seen[key] and (id(x) not in self._replicated or leader in x.device_mesh.mesh.flatten().tolist())

    def _is_first(self, x: Any, path: str) -> bool:
        """Whether this rank is the first of those that hold this rank's part of a DTensor."""
        mesh, split = x.device_mesh, split_dims(x)
        here = mesh.get_coordinate()
        if here is None:
            return False
        others = slice_of(mesh.mesh, here, free=split)
        outside = sorted(set(others) - set(self._ranks.members))
        if outside:
            raise ValueError(
                f"{path} is split over the ranks {others}, of which {outside} take no part, expected a group that "
                "holds all of them; pass group=torch.distributed.group.WORLD, or the ranks over which it is split"
            )
        root, names = _root(mesh), mesh.mesh_dim_names
        if names is None:
            same = slice_of(mesh.mesh, here, free=[i for i in range(mesh.ndim) if i not in split])
        else:  # the same along the dimensions on which only other tensors are spread, too
            whole = [name for name in self._used[id(root)] if name not in names or names.index(name) not in split]
            free = [i for i, name in enumerate(root.mesh_dim_names) if name in whole]
            same = slice_of(root.mesh, root.get_coordinate(), free=free)
        return min(set(same) & set(self._ranks.members)) == distributed.get_rank()


def inferred(holders: Sequence[Any], paths: Sequence[str], replicated: frozenset[int]) -> Ranks | None:
    """Return the ranks of tensors for which the caller names none: all; or None if every tensor is whole on each rank.

    Raises
    ------
    ValueError
        If other ranks may hold parameters that this rank does not know of, so that each would get a norm of its own.
    """
    if not is_initialized():
        return None
    found = [is_distributed(x) for x in holders]
    if not any(found):
        _refuse_flat(holders, paths)
        return None
    plain = [i for i, x in enumerate(holders) if not found[i] and id(x) not in replicated]
    if plain:
        raise ValueError(
            f"{paths[plain[0]]} is a plain tensor among DTensors (plain: {len(plain)} of {len(holders)}), expected to "
            "be told whether all ranks hold the same of it or each its own; pass replicated= with such parameters if "
            "they are the same, else group=torch.distributed.group.WORLD"
        )
    used = _used_dims(holders)
    for i in {id(x.device_mesh): i for i, x in enumerate(holders) if found[i] and id(x) not in replicated}.values():
        _check_covered(holders[i].device_mesh, paths[i], used)
    return everyone()


def _check_covered(mesh: Any, path: str, used: dict[int, set[str]]) -> None:
    """Check that the dimensions along which the model is spread hold all ranks."""
    root, names = _root(mesh), mesh.mesh_dim_names
    sizes = [n for i, n in enumerate(root.shape) if names is None or root.mesh_dim_names[i] in used[id(root)]]
    size, world = math.prod(sizes), distributed.get_world_size()
    if size != world:
        raise ValueError(
            f"{path} is on a mesh of {size} of {world} ranks, expected all, because the others may hold other "
            "parameters, as experts and pipeline stages do; pass group=torch.distributed.group.WORLD if they do, or "
            "the mesh itself as group= if they hold copies"
        )


def _refuse_flat(holders: Sequence[Any], paths: Sequence[str]) -> None:
    """Raise for the flat parameters of FSDP1, of which each rank holds another part. With NO_SHARD they are whole."""
    flat = [i for i, x in enumerate(holders) if getattr(x, "_fsdp_flattened", False)]
    if flat and all(_is_shard(holders[i]) for i in flat):
        raise ValueError(
            f"{paths[flat[0]]} is a parameter of FSDP1 (FullyShardedDataParallel), of which each rank holds a part, "
            "expected the group over which it is split; pass group=model.process_group, or use FSDP2 (fully_shard)"
        )


def _is_shard(x: Any) -> bool:
    """Whether a parameter of FSDP1 is a part: flat ones know their whole size, others are views of one dimension."""
    whole = getattr(x, "_unpadded_unsharded_size", None)
    return bool(x.dim() == 1 if whole is None else x.numel() != whole.numel())


def _used_dims(holders: Iterable[Any]) -> dict[int, set[str]]:
    """Return, by the ``id`` of a root mesh, the names of the dimensions along which any tensor is spread."""
    used: dict[int, set[str]] = {}
    for mesh in {id(x.device_mesh): x.device_mesh for x in holders if is_distributed(x)}.values():
        used.setdefault(id(_root(mesh)), set()).update(mesh.mesh_dim_names or ())
    return used


def _root(mesh: Any) -> Any:
    """Return the mesh of which a mesh has some or all dimensions, found by their names; else the mesh itself."""
    root = mesh._get_root_mesh() if hasattr(mesh, "_get_root_mesh") else mesh
    named = set(mesh.mesh_dim_names or ()), set(root.mesh_dim_names or ())
    return root if named[0] and named[0] <= named[1] and root.get_coordinate() is not None else mesh


def slice_of(ranks: Tensor, here: Sequence[int], free: Iterable[int]) -> list[int]:
    """Return the ranks of a mesh that differ from a coordinate along the ``free`` dimensions only."""
    free = set(free)
    index = tuple(slice(None) if i in free else where for i, where in enumerate(here))
    found: list[int] = ranks[index].flatten().tolist()
    return found
