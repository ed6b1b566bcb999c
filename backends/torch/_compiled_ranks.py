"""Under ``torch.compile``, gradients that are DTensors: two operations of the graph, and an all-gather between them.

The operations of `_compiled` take plain tensors. When a graph is made with DTensors, PyTorch asks the rules below what
to put in their place: an operation that measures what this rank owns, PyTorch's functional all-gather of one small row,
and an operation that checks the rows and clips. Which rank owns what is found out once, when the graph is made.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from gradclip._decision import Rule, decide_by_arrays
from gradclip._nonfinite import refuse_nonfinite
from gradclip._partial import NormPartial
from gradclip._types import AnyScalar
from gradclip.backends.torch._leaves import TorchLeaves, leaves_of
from gradclip.backends.torch.ops._exchange import ROW_NUMEL, Pending, Row, merged_rows, row_of
from gradclip.backends.torch.ops._ownership import (
    Ownership,
    inferred,
    is_distributed,
    layouts_of,
    meshes_of,
    parts_of,
    whole_of,
)
from gradclip.backends.torch.ops._pending import refuse_pending
from gradclip.backends.torch.ops._ranks import Ranks
from gradclip.backends.torch.ops._terms import terms_of


class _Placed(NamedTuple):
    """What the graph knows of a DTensor when it is made."""

    device_mesh: Any
    placements: tuple[Any, ...]


class _Shares(NamedTuple):
    """What this rank has: its parts of the gradients, those that it counts, and the ranks; None: no other ranks."""

    parts: list[Tensor]
    owned: list[int]
    ranks: Ranks | None


def rules() -> None:
    """Tell PyTorch what the operations do with DTensors. Call it when there are some: their import takes long."""
    _register()


@cache
def _register() -> None:
    from torch.distributed.tensor import DTensor

    made: dict[str, Callable[..., Any]] = {
        "clip_norm_": _clip_norm_, "total_norm": _total_norm, "clip_value_": _clip_value_,
        "clip_with_norm_": _clip_with_norm_,
    }  # fmt: skip
    for name, rule in made.items():
        torch.library.register_torch_dispatch(f"gradclip::{name}", DTensor, _applied(rule))


def _applied(rule: Callable[..., Any]) -> Callable[..., Any]:
    def apply(_mode: object, _func: object, _types: object, args: Any, kwargs: Any = None) -> Any:
        with torch.no_grad():
            return rule(*args, **(kwargs or {}))

    return apply


def _clip_norm_(
    grads: list[Tensor],
    holders: list[Tensor],
    place: list[int],
    max_norm: Tensor | None,
    scale: Tensor,
    ord: float,
    nonfinite: str,
    eps: Tensor,
) -> Tensor:
    parts, owned, ranks = _shares(grads, holders)
    norm: Tensor
    if ranks is None:
        norm = torch.ops.gradclip.clip_norm_(parts, [], place, max_norm, scale, ord, nonfinite, eps)
        return norm
    row = torch.ops.gradclip.rank_row(parts, owned, max_norm, scale, ord, nonfinite, eps, ROW_NUMEL)
    rows, double = ranks.gathered_in_graph(row), any(map(_is_double, parts))
    norm = torch.ops.gradclip.clip_by_rows_(
        parts, rows, list(ranks.members), max_norm, scale, ord, nonfinite, eps, double
    )
    return norm


def _total_norm(grads: list[Tensor], holders: list[Tensor], place: list[int], ord: float, error: bool) -> Tensor:
    one, nothing = (torch.full((), x, dtype=torch.float64) for x in (1.0, 0.0))
    return _clip_norm_(grads, holders, place, None, one, ord, "error" if error else "propagate", nothing)


def _clip_value_(grads: list[Tensor], clip_value: Tensor) -> None:
    with _disable_current_modes():
        placed = list(map(_placed, grads))
        refuse_pending(layouts_of(placed), lambda: _paths(grads))
    torch.ops.gradclip.clip_value_(parts_of(grads), clip_value)


def _clip_with_norm_(grads: list[Tensor], max_norm: Tensor, norm: Tensor) -> None:
    known = whole_of(norm) if is_distributed(norm) else norm
    torch.ops.gradclip.clip_with_norm_(parts_of(grads), max_norm, known)


def _shares(grads: list[Tensor], holders: list[Tensor]) -> _Shares:
    """Return what this rank has of gradients.

    Raises
    ------
    ValueError
        If gradients are sums that are yet to be made, or it is not known who else has parts of them.
    """
    with _disable_current_modes():  # meshes are no part of the graph
        placed, held = list(map(_placed, grads)), list(map(_placed, holders))
        layouts, meshes = layouts_of(placed), meshes_of([*held, *placed])
        refuse_pending(layouts, lambda: _paths(grads))
        ranks = inferred([*held, *placed], meshes, lambda i: f"parameters[{i}]", frozenset())
        owned = [] if ranks is None else Ownership(meshes, ranks).owned(placed, layouts, lambda: _paths(grads))
    return _Shares(parts_of(grads), owned, ranks)


def _placed(x: Any) -> Any:
    """Return what is known of a DTensor, with the mesh itself; a plain tensor as it is."""
    if not is_distributed(x):
        return x
    return _Placed(getattr(x.device_mesh, "real_obj", x.device_mesh), x.placements)


def _paths(grads: Sequence[Tensor]) -> list[str]:
    return [f"gradients[{i}]" for i in range(len(grads))]


def _is_double(x: Tensor) -> bool:
    return x.dtype in (torch.float64, torch.complex128)


def _leaves(parts: list[Tensor]) -> TorchLeaves:
    return leaves_of(parts, lambda: _paths(parts))


@torch.library.custom_op("gradclip::rank_row", mutates_args=())
def _rank_row(
    parts: list[Tensor],
    owned: list[int],
    max_norm: Tensor | None,
    scale: Tensor,
    ord: float,
    nonfinite: str,
    eps: Tensor,
    numel: int,  # noqa: ARG001  # of a row: kept graphs with other rows must not fit
) -> Tensor:
    """Return the row of this rank; an error becomes a row that says so, and is raised by the operation that clips."""
    like = torch.ones((), dtype=torch.float64, device=parts[0].device if parts else None)
    try:
        rule = Rule(max_norm, ord, nonfinite, scale, eps)
        _leaves(parts).targets("clip_by_global_norm")
        mine = [parts[i] for i in owned]
        partial = _leaves(mine).partial(ord) if mine else NormPartial(like, like * 0, ord, torch.float32)
        return row_of(partial, _beside(rule.max_norm, like), Pending(), terms_of(rule)).tensor()
    except (TypeError, ValueError):
        return Row(total=like * 0, failed=1.0).tensor()


@_rank_row.register_fake
def _(parts: list[Tensor], owned: list[int], max_norm: Tensor | None, scale: Tensor, *rest: Any) -> Tensor:
    del owned, max_norm
    return (parts[0] if parts else scale).new_empty((rest[-1],), dtype=torch.float64)


@torch.library.custom_op("gradclip::clip_by_rows_", mutates_args={"parts"})
def _clip_by_rows_(
    parts: list[Tensor],
    rows: Tensor,
    members: list[int],
    max_norm: Tensor | None,
    scale: Tensor,
    ord: float,
    nonfinite: str,
    eps: Tensor,
    double: bool,
) -> Tensor:
    """Clip this rank's parts by the norm of all ranks' rows, and return it."""
    rule, leaves = Rule(max_norm, ord, nonfinite, scale, eps), _leaves(parts)
    leaves.targets("clip_by_global_norm")
    partial, _ = merged_rows(rows, members, ord, double=double)
    decision = decide_by_arrays(partial, rule)
    if rule.nonfinite == "error":
        refuse_nonfinite(leaves, decision.finite, ord)
    leaves.scale_([decision.coefficient] * len(parts), "clip_by_global_norm")
    norm: Tensor = decision.norm.to(torch.float64 if double else torch.float32)
    return norm


@_clip_by_rows_.register_fake
def _(parts: list[Tensor], rows: Tensor, *rest: Any) -> Tensor:
    del parts  # the norm is where the rows are
    double = rest[-1]
    return rows.new_empty((), dtype=torch.float64 if double else torch.float32)


def _beside(value: AnyScalar | None, like: Tensor) -> Any:
    return value.to(like.device) if isinstance(value, Tensor) else value
