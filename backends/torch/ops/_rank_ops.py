"""``Ops`` for gradients that are spread over ranks: DTensors, as FSDP2 and tensor parallelism make them, and others.

Every rank measures the parts that it owns. Their partial norm, two numbers, is gathered with a few numbers that must
agree, and merged in the order of the ranks. So all ranks get the same bits from one collective, and no gradient is
sent; only sums that are yet to be made (``Partial``) are made before, of a copy.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gradclip._coefficient import Coefficient
from gradclip._decision import Decision, Rule, decide_by_arrays
from gradclip._dtypes import is_double
from gradclip._ops import OfArrays, Ops
from gradclip._partial import NormPartial
from gradclip._types import AnyScalar, Axes
from gradclip.backends.torch.ops._exchange import Exchange, Pending, row_of
from gradclip.backends.torch.ops._ownership import Ownership, layouts_of, meshes_of, refuse_shards
from gradclip.backends.torch.ops._pending import pending_of, refuse_pending, summed, waiting_of
from gradclip.backends.torch.ops._scope import Scope, merged_along, scope_of
from gradclip.backends.torch.ops._terms import Terms, terms_of


class Spread:
    """How the gradients of a call are spread over ranks.

    Parameters
    ----------
    grads : sequence of Tensor
        The distinct gradients as they are, DTensors or plain tensors: one for each leaf, in the same order.
    paths : callable
        Returns their paths, for error messages.
    holders : sequence of Tensor
        All parameters of the call, also those without a gradient: the same on all ranks that hold parts of them.
    replicated : frozenset of int
        The ``id`` of gradients that are declared the same on all ranks.
    """

    def __init__(
        self,
        grads: Sequence[Any],
        paths: Callable[[], list[str]],
        holders: Sequence[Any],
        replicated: frozenset[int] = frozenset(),
    ) -> None:
        self.grads, self.paths, self.holders, self.replicated = grads, paths, holders, replicated
        self.layouts = layouts_of(grads)
        of_grads = {id(layout.mesh): layout.mesh for layout in self.layouts if layout.mesh is not None}
        self.meshes = meshes_of(holders)
        self.all_meshes = {**self.meshes, **of_grads}

    @property
    def held(self) -> list[int]:
        """For each holder, the position of its gradient in ``grads``; -1 if it has none."""
        position = {id(g): i for i, g in enumerate(self.grads)}
        return [position.get(id(x), position.get(id(x.grad), -1)) for x in self.holders]

    def path_of(self, holder: int) -> str:
        """Return the path of a holder's gradient, or its position if it has none."""
        at = self.held[holder]
        return self.paths()[at] if at >= 0 else f"parameters[{holder}]"


class RankOps(OfArrays):
    """The operations of ``Ops`` for this rank's parts of gradients.

    Parameters
    ----------
    here : Ops
        The operations for the parts themselves.
    spread : Spread
        The gradients that the leaves are parts of.
    exchange : Exchange
        What is exchanged with other ranks.
    terms : dict
        The terms of the call, if it does not pass a rule that has them.
    """

    def __init__(self, here: Ops, spread: Spread, exchange: Exchange, terms: Terms | None = None) -> None:
        self.here, self._spread, self._exchange, self._terms = here, spread, exchange, terms

    def on_terms(self, terms: Terms) -> "RankOps":
        """Return these operations for a call with these terms, on which all ranks must agree."""
        return RankOps(self.here, self._spread, self._exchange, terms)

    def decide(self, leaves: Sequence[Tensor], rule: Rule) -> Decision:
        """Return the norm of all gradients of all ranks laid end to end and the coefficient."""
        return decide_by_arrays(self.partial_for(leaves, rule), rule)

    def partial_for(self, leaves: Sequence[Tensor], rule: Rule) -> NormPartial:
        """Return the partial norm of all gradients of all ranks, which must have the same rule."""
        ops = self if self._terms is not None else self.on_terms(terms_of(rule))
        return ops.partial(leaves, rule.ord, rule.max_norm)

    def partial(self, leaves: Sequence[Tensor], ord: float, max_norm: AnyScalar | None = None) -> NormPartial:
        """Return the partial norm of all gradients of all ranks, which must have the same ``max_norm`` and terms."""
        owned, waiting = self._owned(), waiting_of(self._spread.layouts)
        pending = self._pending()
        ready = [i for i in owned if i not in waiting] if waiting else owned
        mine = self._measured(leaves, ready, ord)
        later = mine.total.device.type == "cpu"  # a host checks that all ranks have the same sums before it makes them
        if waiting and not later:
            mine = mine.merge(self._sums(waiting, owned, ord))
        whole, any_pending = self._exchange.merged(row_of(mine, max_norm, pending, self._terms), self._terms)
        if any_pending:
            if waiting:
                mine = mine.merge(self._sums(waiting, owned, ord))
            whole, _ = self._exchange.merged(row_of(mine, max_norm, pending, self._terms), self._terms)
        return whole

    def refuse_sums(self) -> None:
        """Raise if a gradient is a sum that is yet to be made, where only the sum of all ranks would do."""
        refuse_pending(self._spread.layouts, self._spread.paths)

    def own_partial(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return the partial norm of the parts that this rank owns; other ranks need not call it.

        Raises
        ------
        ValueError
            If a gradient is a sum that is yet to be made, to which other ranks would have to contribute.
        """
        self.refuse_sums()
        return self._measured(leaves, self._owned(), ord)

    def _owned(self) -> list[int]:
        """Return the positions of the leaves that this rank counts."""
        spread = self._spread
        ownership = Ownership(spread.all_meshes, self._exchange.ranks(), spread.replicated)
        return ownership.owned(spread.grads, spread.layouts, spread.paths)

    def _pending(self) -> Pending:
        return pending_of(self._spread.grads, self._spread.layouts, self._spread.paths)

    def _sums(self, waiting: Sequence[int], owned: Sequence[int], ord: float) -> NormPartial:
        """Make the sums that are yet to be made, and return the partial norm of those which this rank counts."""
        made = summed([self._spread.grads[i] for i in waiting])
        mine = [x for i, x in zip(waiting, made, strict=True) if i in owned]
        if not mine:
            return _nothing(made, ord)
        wide = any(is_double(self._spread.grads[i].dtype) for i in waiting if i in owned)  # sums are made in float64
        return replace(self.here.partial(mine, ord), dtype=torch.float64 if wide else torch.float32)

    def _measured(self, leaves: Sequence[Tensor], which: Sequence[int], ord: float) -> NormPartial:
        mine = leaves if len(which) == len(leaves) else [leaves[i] for i in which]
        return self.here.partial(mine, ord) if mine else _nothing(leaves, ord)

    def partials(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return one partial norm for each whole gradient: on each rank that has a part of it, the same.

        All ranks of a gradient's mesh take part, also those on which the gradient is None.
        """
        self.refuse_sums()
        refuse_shards(self._spread.holders, self._spread.path_of)
        local = self.here.partials(leaves, ord) if leaves else _nothing(leaves, ord, (0,))
        scale, total = local.scale.clone(), local.total.clone()
        held = self._spread.held
        for scope, holders in self._scopes():
            if scope.mesh is None or scope.mesh.get_coordinate() is None:
                continue
            found = [(k, held[i]) for k, i in enumerate(holders) if held[i] >= 0]
            batch = _nothing(leaves, ord, (len(holders),))
            rows, which = ([pair[i] for pair in found] for i in (0, 1))
            batch.scale[rows], batch.total[rows] = scale[which], total[which]
            tensors = [self._spread.holders[i] for i in holders]
            whole = merged_along(scope, replace(batch, dtype=local.dtype), tensors)
            scale[which], total[which] = whole.scale[rows], whole.total[rows]
        return NormPartial(scale, total, ord, local.dtype)

    def _scopes(self) -> list[tuple[Scope, list[int]]]:
        """Return the positions of the holders of each scope, in an order that is the same on all ranks."""
        found: dict[Scope, list[int]] = {}
        for layout in layouts_of(self._spread.holders):
            found.setdefault(scope_of(layout), []).extend(layout.which)
        return sorted(((scope, sorted(which)) for scope, which in found.items()), key=lambda pair: pair[0][:2])

    def named_partials(self, leaves: Sequence[Tensor], names: Sequence[str], ord: float) -> dict[str, NormPartial]:
        """Return the partial norm of each whole gradient by name, of all ranks: for reports.

        Parameters
        ----------
        names : sequence of str
            A name for each leaf; parts of one gradient have the same name on all ranks.
        """
        owned, waiting = self._owned(), waiting_of(self._spread.layouts)
        self._exchange.merged(row_of(_nothing(leaves, ord), None, self._pending()))  # all agree, or all raise
        made = summed([self._spread.grads[i] for i in waiting]) if waiting else []
        measured = {**dict(enumerate(leaves)), **dict(zip(waiting, made, strict=True))}
        batch = self.here.partials([measured[i] for i in owned], ord) if owned else _nothing(leaves, ord, (0,))
        numbers = zip(owned, batch.scale.tolist(), batch.total.tolist(), strict=True)
        told = {names[i]: (scale, total, is_double(leaves[i].dtype)) for i, scale, total in numbers}
        merged: dict[str, NormPartial] = {}
        for rank in self._exchange.objects(told):
            for name, (scale, total, double) in rank.items():
                s, t = torch.tensor([scale, total], dtype=torch.float64)
                part = NormPartial(s, t, ord, torch.float64 if double else torch.float32)
                merged[name] = merged[name].merge(part) if name in merged else part
        return merged

    def nonfinite(self, leaves: Sequence[Tensor], paths: Sequence[str]) -> list[tuple[str, str]]:
        """Return the paths of gradients that have NaN or inf on any rank, with the rank; all ranks call it."""
        totals = self.here.partials(leaves, 2.0).total.isfinite().tolist() if leaves else []
        mine = [path for path, finite in zip(paths, totals, strict=True) if not finite]
        everyone = zip(self._exchange.ranks().members, self._exchange.objects(mine), strict=True)
        return [(path, f" on rank {rank}") for rank, some in everyone for path in some]

    def partial_along(self, leaf: Tensor, ord: float, axes: Axes) -> NormPartial:
        """Raise: a slice of a whole tensor may lie on several ranks."""
        raise NotImplementedError(_NO_SLICES)

    def apart(self, leaves: Sequence[Tensor]) -> bool:
        """Whether it is known that no two elements of leaves share memory."""
        return self.here.apart(leaves)

    def scale(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> list[Tensor]:
        """Return each part times its gradient's coefficient."""
        return self.here.scale(leaves, coefficients)

    def scale_(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each part by its gradient's coefficient in place."""
        self.here.scale_(leaves, coefficients)

    def scaled_sum(self, leaf: Tensor, coefficient: Coefficient) -> Tensor:
        """Raise: an example of a whole tensor may lie on several ranks."""
        raise NotImplementedError(_NO_SLICES)

    def clamp(self, leaves: Sequence[Tensor], low: AnyScalar, high: AnyScalar) -> list[Tensor]:
        """Return each part with its elements moved into the bounds."""
        return self.here.clamp(leaves, low, high)

    def clamp_(self, leaves: Sequence[Tensor], low: AnyScalar, high: AnyScalar) -> None:
        """Move the elements of each part into the bounds in place."""
        self.refuse_sums()
        self.here.clamp_(leaves, low, high)


_NO_SLICES = "the parts of a DTensor have no slices of their own; pass plain tensors"


def _nothing(leaves: Sequence[Tensor], ord: float, shape: tuple[int, ...] = ()) -> NormPartial:
    """Return zero partial norms on the leaves' device: one, or a batch of some shape."""
    one = torch.ones(shape, dtype=torch.float64, device=leaves[0].device if leaves else None)
    return NormPartial(one, one * 0, ord, torch.float32)
