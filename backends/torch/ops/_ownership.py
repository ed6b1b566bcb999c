"""Which rank counts a part of a gradient: of the ranks that hold the same part, the first.

DTensor says for each dimension of its mesh whether a tensor is split along it (``Shard``), is the same on all of its
ranks (``Replicate``), or is a sum that is yet to be made (``Partial``), which is the same on all once it was made.
Plain tensors say nothing: each rank's counts, unless the caller declares them replicated.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any, NamedTuple

from torch import Tensor, distributed

from gradclip.backends.torch.ops._ranks import Ranks, everyone, is_initialized

_OF_EACH = "because each is clipped by its own norm; use FSDP2 (fully_shard), or one threshold for all"


@lru_cache(maxsize=256)
def _is_dtensor(kind: Any) -> bool:
    return hasattr(kind, "device_mesh") and hasattr(kind, "placements")


def is_distributed(x: object) -> bool:
    """Whether a tensor is a DTensor."""
    kind: Any = type(x)  # any type is hashable
    return _is_dtensor(kind)


def any_distributed(tensors: Iterable[object]) -> bool:
    """Whether any tensor is a DTensor."""
    kinds: set[Any] = set(map(type, tensors))
    return any(map(_is_dtensor, kinds))


def all_distributed(tensors: Iterable[object]) -> bool:
    """Whether all tensors are DTensors."""
    kinds: set[Any] = set(map(type, tensors))
    return all(map(_is_dtensor, kinds))


class Layout(NamedTuple):
    """The tensors that are spread in the same way.

    Parameters
    ----------
    mesh : DeviceMesh or None
        None for plain tensors.
    placements : tuple of Placement
    which : list of int
        The positions of the tensors.
    """

    mesh: Any
    placements: tuple[Any, ...]
    which: list[int]

    @property
    def split(self) -> tuple[int, ...]:
        """The dimensions of the mesh along which the tensors are split."""
        return tuple(i for i, p in enumerate(self.placements) if not (p.is_replicate() or p.is_partial()))

    @property
    def pending(self) -> tuple[int, ...]:
        """The dimensions of the mesh along which the tensors are sums that are yet to be made."""
        return tuple(i for i, p in enumerate(self.placements) if p.is_partial())


def layouts_of(tensors: Sequence[Any]) -> list[Layout]:
    """Return the layouts of tensors, each with the positions of its tensors."""
    found: dict[tuple[int, tuple[Any, ...]], Layout] = {}
    mesh = placements = which = None
    for i, (its_mesh, its_placements) in enumerate(_spreads(tensors)):
        if which is None or its_mesh is not mesh or its_placements != placements:  # mostly, it is that of the last one
            mesh, placements = its_mesh, its_placements
            which = found.setdefault((id(mesh), placements), Layout(mesh, placements, [])).which
        which.append(i)
    return list(found.values())


def _spreads(tensors: Sequence[Any]) -> Iterable[tuple[Any, tuple[Any, ...]]]:
    """Return the mesh and the placements of each tensor."""
    if all_distributed(tensors):  # the usual case, in less time
        return zip(map(_mesh, tensors), map(_placements, tensors), strict=True)
    return [(x.device_mesh, x.placements) if is_distributed(x) else (None, ()) for x in tensors]


_mesh, _placements = attrgetter("device_mesh"), attrgetter("placements")


def parts_of(tensors: Sequence[Any]) -> list[Tensor]:
    """Return this rank's part of each tensor, in the same memory; no gradients may be recorded."""
    if all_distributed(tensors):  # the usual case, in less time
        return [x.to_local() for x in tensors]
    return [x.to_local() if is_distributed(x) else x for x in tensors]


def whole_of(x: Any) -> Tensor:
    """Return the whole of a DTensor on each rank."""
    whole: Tensor = x.full_tensor()
    return whole


class Ownership:
    """Who counts which part.

    Parameters
    ----------
    meshes : dict
        The meshes of all parameters and gradients of the call, as `meshes_of` returns them. They tell along which
        dimensions of a root mesh this model is spread: a tensor that is only on some of these is the same along the
        others.
    ranks : Ranks
        The ranks that take part.
    replicated : set of int
        The ``id`` of tensors that are declared the same on all ranks.
    """

    def __init__(self, meshes: Mapping[int, Any], ranks: Ranks, replicated: frozenset[int] = frozenset()) -> None:
        self._ranks, self._replicated = ranks, replicated
        self._used = _used_dims(meshes.values())

    def owned(self, grads: Sequence[Any], layouts: Sequence[Layout], paths: Callable[[], list[str]]) -> list[int]:
        """Return the positions of the gradients of which this rank counts its part, in order.

        Raises
        ------
        ValueError
            If other parts of a gradient are on ranks that take no part.
        """
        leader = self._ranks.members[0]
        owned: list[int] = []
        for layout in layouts:
            if layout.mesh is not None and not self._is_first(layout, paths):
                continue
            leads = layout.mesh is None and distributed.get_rank() == leader
            leads = leads or (layout.mesh is not None and leader in ranks_in(layout.mesh))
            once = not leads and self._replicated
            owned += [i for i in layout.which if id(grads[i]) not in self._replicated] if once else layout.which
        return owned if len(layouts) == 1 else sorted(owned)

    def _is_first(self, layout: Layout, paths: Callable[[], list[str]]) -> bool:
        """Whether this rank is the first of those that hold its parts of DTensors."""
        mesh, split = layout.mesh, layout.split
        here = mesh.get_coordinate()
        if here is None:
            return False
        others = slice_of(grid(mesh), here, free=split)
        outside = sorted(set(others) - set(self._ranks.members))
        if outside:
            raise ValueError(
                f"{paths()[layout.which[0]]} is split over the ranks {others}, of which {outside} take no part, "
                "expected a group that holds all of them; pass group=torch.distributed.group.WORLD, or the ranks over "
                "which it is split"
            )
        root, names = _root(mesh), mesh.mesh_dim_names
        if names is None:
            same = slice_of(grid(mesh), here, free=[i for i in range(mesh.ndim) if i not in split])
        else:  # the same along the dimensions on which only other tensors are spread, too
            whole = [name for name in self._used[root] if name not in names or names.index(name) not in split]
            free = [i for i, name in enumerate(root.mesh_dim_names) if name in whole]
            same = slice_of(grid(root), root.get_coordinate(), free=free)
        return min(set(same) & set(self._ranks.members)) == distributed.get_rank()


def inferred(
    holders: Sequence[Any], meshes: Mapping[int, Any], path_of: Callable[[int], str], replicated: frozenset[int]
) -> Ranks | None:
    """Return the ranks of tensors for which the caller names none: all; or None if every tensor is whole on each rank.

    Parameters
    ----------
    holders : sequence of Tensor
    meshes : dict
        Their meshes, as `meshes_of` returns them.
    path_of : callable
        Returns the path of one of them, for error messages.
    replicated : frozenset of int
        The ``id`` of those that are declared the same on all ranks.

    Raises
    ------
    ValueError
        If other ranks may hold parameters that this rank does not know of, so that each would get a norm of its own.
    """
    if not is_initialized():
        return None
    if distributed.get_world_size() == 1:  # it holds everything
        return everyone() if any_distributed(holders) else None
    if not any_distributed(holders):
        _refuse_flat(holders, path_of)
        return None
    if not all_distributed(holders):
        _refuse_plain(holders, path_of, replicated)
    used = _used_dims(meshes.values())
    for key, mesh in meshes.items():
        if not replicated or id(holders[_first_on(holders, key)]) not in replicated:
            _check_covered(mesh, used, partial(_path_on, holders, key, path_of))
    return everyone()


def _path_on(holders: Sequence[Any], mesh: int, path_of: Callable[[int], str]) -> str:
    """Return the path of the first tensor on a mesh."""
    return path_of(_first_on(holders, mesh))


def _first_on(holders: Sequence[Any], mesh: int) -> int:
    """Return the position of the first tensor on a mesh, which is given by its ``id``."""
    return next(i for i, x in enumerate(holders) if is_distributed(x) and id(x.device_mesh) == mesh)


def _refuse_plain(holders: Sequence[Any], path_of: Callable[[int], str], replicated: frozenset[int]) -> None:
    """Raise for plain tensors among DTensors that are not declared to be the same on all ranks."""
    plain = [i for i, x in enumerate(holders) if not is_distributed(x) and id(x) not in replicated]
    if plain:
        raise ValueError(
            f"{path_of(plain[0])} is a plain tensor among DTensors (plain: {len(plain)} of {len(holders)}), expected "
            "to be told whether all ranks hold the same of it or each its own; pass replicated= with such parameters "
            "if they are the same, else group=torch.distributed.group.WORLD"
        )


def refuse_nothing() -> None:
    """Raise for a call without parameters, for which other ranks may be waiting."""
    world = distributed.get_world_size()
    if world > 1:
        raise ValueError(
            f"there is no parameter on this rank, one of {world}, expected at least one, because it is not known "
            "whether the other ranks hold DTensors and wait for this one; pass group=torch.distributed.group.WORLD on "
            "all ranks if they do, else call the function only if there are parameters"
        )


def are_covering(meshes: Mapping[int, Any]) -> bool:
    """Whether the dimensions along which the model is spread hold all ranks, on every mesh."""
    used = _used_dims(meshes.values())
    return all(_size_of(mesh, used) == distributed.get_world_size() for mesh in meshes.values())


def _size_of(mesh: Any, used: dict[Any, set[str]]) -> int:
    """Return how many ranks there are along those dimensions of a root mesh along which the model is spread."""
    root, names = _root(mesh), mesh.mesh_dim_names
    return math.prod(n for i, n in enumerate(root.shape) if names is None or root.mesh_dim_names[i] in used[root])


def _check_covered(mesh: Any, used: dict[Any, set[str]], path: Callable[[], str]) -> None:
    """Check that the dimensions along which the model is spread hold all ranks."""
    size, world = _size_of(mesh, used), distributed.get_world_size()
    if size != world:
        raise ValueError(
            f"{path()} is on a mesh of {size} of {world} ranks, expected all, because the others may hold other "
            "parameters, as experts and pipeline stages do; pass group=torch.distributed.group.WORLD if they do, or "
            "the mesh itself as group= if they hold copies"
        )


def _refuse_flat(holders: Sequence[Any], path_of: Callable[[int], str]) -> None:
    """Raise for the flat parameters of FSDP1, of which each rank holds another part. With NO_SHARD they are whole."""
    flat = [i for i, x in enumerate(holders) if getattr(x, "_fsdp_flattened", False)]
    if flat and all(_is_shard(holders[i]) for i in flat):
        raise ValueError(
            f"{path_of(flat[0])} is a parameter of FSDP1 (FullyShardedDataParallel), of which each rank holds a part, "
            "expected the group over which it is split; pass group=model.process_group, or use FSDP2 (fully_shard)"
        )


def refuse_shards(holders: Sequence[Any], path_of: Callable[[int], str], remedy: str = _OF_EACH) -> None:
    """Raise for FSDP1's parts of parameters, where whole parameters are needed."""
    split = [i for i, x in enumerate(holders) if getattr(x, "_fsdp_flattened", False) and _is_shard(x)]
    if split:
        raise ValueError(
            f"{path_of(split[0])} is a parameter of FSDP1 (FullyShardedDataParallel), of which each rank holds a part, "
            f"expected whole parameters or DTensors, {remedy}"
        )


def _is_shard(x: Any) -> bool:
    """Whether a parameter of FSDP1 is a part: flat ones know their whole size, others are views of one dimension."""
    whole = getattr(x, "_unpadded_unsharded_size", None)
    return bool(x.dim() == 1 if whole is None else x.numel() != whole.numel())


def meshes_of(tensors: Sequence[Any]) -> dict[int, Any]:
    """Return the distinct meshes of tensors by their ``id``."""
    some = tensors if all_distributed(tensors) else [x for x in tensors if is_distributed(x)]
    return {id(mesh): mesh for mesh in map(_mesh, some)}


def _used_dims(meshes: Iterable[Any]) -> dict[Any, set[str]]:
    """Return, by root mesh, the names of the dimensions along which any tensor is spread; equal meshes are the same."""
    used: dict[Any, set[str]] = {}
    for mesh in meshes:
        used.setdefault(_root(mesh), set()).update(mesh.mesh_dim_names or ())
    return used


def _root(mesh: Any) -> Any:
    """Return the mesh of which a mesh has some or all dimensions, found by their names; else the mesh itself."""
    root = mesh._get_root_mesh() if hasattr(mesh, "_get_root_mesh") else mesh
    named = set(mesh.mesh_dim_names or ()), set(root.mesh_dim_names or ())
    return root if named[0] and named[0] <= named[1] and root.get_coordinate() is not None else mesh


@lru_cache(maxsize=64)
def grid(mesh: Any) -> Tensor:
    """Return the ranks of a mesh in its shape, which PyTorch computes anew each time."""
    ranks: Tensor = mesh.mesh
    return ranks


@lru_cache(maxsize=64)
def ranks_in(mesh: Any) -> tuple[int, ...]:
    """Return the ranks of a mesh in a row."""
    return tuple(grid(mesh).flatten().tolist())


def slice_of(ranks: Tensor, here: Sequence[int], free: Iterable[int]) -> list[int]:
    """Return the ranks of a mesh that differ from a coordinate along the ``free`` dimensions only."""
    free = set(free)
    index = tuple(slice(None) if i in free else where for i, where in enumerate(here))
    found: list[int] = ranks[index].flatten().tolist()
    return found
