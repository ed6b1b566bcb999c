"""Conversion of PyTorch's containers of parameters or gradients to leaves: distinct gradients and their `Ops`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import GeneratorType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gradclip import _checks
from gradclip._coefficient import Coefficient, is_shared
from gradclip._decision import Decision, Rule
from gradclip._ops import Ops
from gradclip._partial import NormPartial
from gradclip._tree import Leaves
from gradclip.backends.torch._gpu import kernels_for
from gradclip.backends.torch._sharing import Sharing
from gradclip.backends.torch._walk import Found, parameters_in, walk
from gradclip.backends.torch.ops._device import DEVICE, has_memory
from gradclip.backends.torch.ops._devices import SeveralDevices
from gradclip.backends.torch.ops._host import host_ops, on_host, plain_host_ops
from gradclip.backends.torch.ops._ownership import any_distributed, parts_of
from gradclip.backends.torch.ops._rank_ops import RankOps
from gradclip.backends.torch.ops._terms import terms_of

Parameters: TypeAlias = Any
"""A tensor, a Module, an Optimizer, or an iterable of tensors, of (name, tensor) or of param groups; or a dict."""


@dataclass(frozen=True, slots=True)
class TorchLeaves(Leaves):
    """Distinct gradients.

    Parameters
    ----------
    after : sequence of callables
        Functions to call after the leaves were written. They copy the result to uncoalesced sparse gradients.
    wholes : sequence of Tensor or None
        The whole gradients, if leaves are parts of DTensors or the stored values of sparse gradients.
    """

    after: Sequence[Callable[[], object]] = ()
    wholes: Sequence[Tensor] | None = None

    def decide(self, rule: Rule) -> Decision:
        """Return the norm of all gradients and the coefficient. PyTorch gives no warning of overflow to suppress."""
        if rule.max_norm is not None:
            self.check_targets()
        return self.ops.decide(self.arrays, rule)

    @property
    def is_spread(self) -> bool:
        """Whether other ranks hold gradients of the same model, or parts of these."""
        return isinstance(self.ops, RankOps)

    def check_targets(self, *, bounded: bool = False) -> None:
        """Raise the errors of a write now, if other ranks take part: before they have the norm, and write.

        Parameters
        ----------
        bounded : bool
            Whether elements are clipped: then sums that are yet to be made are refused.
        """
        if isinstance(self.ops, RankOps):
            self.targets("clip_by_global_norm")
            if bounded:
                self.ops.refuse_sums()

    def scale_(self, coefficients: Sequence[Coefficient], pure: str) -> None:
        """Multiply each gradient by its coefficient in place; on a host, write only if a gradient changes.

        The check for overlaps takes as long as the norm of many small gradients: it is made only before a write.
        """
        if coefficients and (_may_change(coefficients[0]) or _any_may_change(coefficients)):
            self.ops.scale_(self.targets(pure), coefficients)  # PyTorch warns of no overflow
            self.finish()

    def targets(self, pure: str) -> list[Tensor]:
        """Return the tensors to write to: broadcast gradients without their repeated elements; raise if two overlap."""
        checked = self.ops.readable or torch.compiler.is_compiling()  # on a host, the operations check it
        if not checked and any(map(Tensor.is_inference, self.arrays)):
            _checks.not_frozen(self.arrays, self.array_paths, f"backends.torch.{pure}")
        if self.ops.apart(self.arrays):
            return self.arrays
        targets = [_unexpanded(x) for x in self.arrays]
        if all(map(has_memory, targets)):
            _checks.writable(targets, self.array_paths, f"backends.torch.{pure}")
        return targets

    def partial_for(self, rule: Rule) -> NormPartial:
        """Return the partial norm of all gradients; ranks must have the same threshold."""
        if isinstance(self.ops, RankOps):
            return self.ops.partial_for(self.arrays, rule)
        return self.partial(rule.ord)

    def on_terms(self, rule: Rule, **others: object) -> "TorchLeaves":
        """Return the same leaves; if other ranks hold parts of them, all must agree on the rule and on the others."""
        if not isinstance(self.ops, RankOps):
            return self
        return replace(self, ops=self.ops.on_terms(terms_of(rule, **others)))

    def own_partial(self, ord: float) -> NormPartial:
        """Return the partial norm of what this rank owns, without other ranks."""
        return self.ops.own_partial(self.arrays, ord) if isinstance(self.ops, RankOps) else self.partial(ord)

    def nonfinite(self) -> list[tuple[str, str]]:
        """Return the path of each gradient that has NaN or inf and, if other ranks hold parts of them, the rank."""
        if isinstance(self.ops, RankOps):
            return self.ops.nonfinite(self.arrays, self.array_paths())
        return Leaves.nonfinite(self)  # dataclasses with slots have no super()

    def finish(self) -> None:
        """Copy the result to uncoalesced sparse gradients."""
        for action in self.after:
            action()


def gradients(
    parameters: Parameters, name: str = "parameters", caller: str = "", sharing: Sharing | None = None
) -> TorchLeaves:
    """Return the gradients of parameters; for a dict of tensors that are no parameters, these tensors.

    Parameters
    ----------
    parameters : object
        What the user passed.
    name, caller : str
        Their name, and the public function that was called, for error messages.
    sharing : Sharing, optional
        How norms are shared with other ranks; None for functions that need no norm.

    Raises
    ------
    TypeError
        If something else is passed instead of a parameter: gradients, for example, which would not be clipped.
    """
    if type(parameters) is GeneratorType:
        parameters = list(parameters)
    usual = parameters_in(parameters, name)
    if usual is None:
        return leaves_found(walk(parameters, name, caller), sharing)
    found = [g for p in usual if (g := p.grad) is not None]
    return _leaves(found, lambda: walk(parameters, name, caller).paths, usual, sharing)


def leaves_found(found: Found, sharing: Sharing | None = None) -> TorchLeaves:
    """Return leaves for the gradients of a container, of which other ranks may hold parts."""
    return _leaves(found.grads, lambda: found.paths, found.holders, sharing)


def _leaves(
    grads: list[Tensor], paths: Callable[[], list[str]], holders: Sequence[Tensor], sharing: Sharing | None
) -> TorchLeaves:
    if sharing is None and any_distributed(holders):
        sharing = Sharing(holders, None, ())
    if sharing is None or sharing.is_alone:
        return leaves_of(grads, paths)
    distinct = list({id(g): g for g in grads}.values())
    spread = sharing.spread(distinct, partial(_first_paths, grads, paths), holders)
    if spread is None:
        return leaves_of(grads, paths)
    parts = parts_of(distinct)
    if len(distinct) < len(grads):  # tied parameters
        part = {id(g): x for g, x in zip(distinct, parts, strict=True)}
        parts = [part[id(g)] for g in grads]
    leaves = leaves_of(parts, paths)
    return replace(leaves, ops=RankOps(leaves.ops, spread, sharing.exchange), wholes=distinct)


def _first_paths(grads: list[Tensor], paths: Callable[[], list[str]]) -> list[str]:
    """Return the path of each distinct gradient: its first one."""
    first = {id(g): path for g, path in zip(reversed(grads), reversed(paths()), strict=True)}
    return [first[key] for key in dict.fromkeys(map(id, grads))]


def leaves_of(grads: list[Tensor], paths: Callable[[], list[str]]) -> TorchLeaves:
    """Return leaves for gradients: each distinct gradient once; for a sparse one, its stored values."""
    if (ops := plain_host_ops(grads)) is not None:
        return TorchLeaves(grads, ops, range(len(grads)), list, paths)
    slots: Sequence[int] = range(len(grads))
    arrays = grads
    if len(set(map(id, grads))) < len(grads):
        first: dict[int, int] = {}
        slots = [first.setdefault(id(g), len(first)) for g in grads]
        arrays = list({id(g): g for g in grads}.values())
    after: list[Callable[[], object]] = []
    wholes = None
    if any(g.layout is not torch.strided for g in arrays):
        wholes = arrays
        arrays = [_dense(g, after) for g in arrays]
    seen: dict[torch.dtype, int] = {}
    for i, g in enumerate(arrays):
        if g.dtype not in seen:
            seen[g.dtype] = i
            _checks.leaf(g, paths, slots.index(i))
    return TorchLeaves(arrays, ops_of(arrays), slots, list, paths, after, wholes)


def ops_of(arrays: Sequence[Tensor]) -> Ops:
    """Return the operations for tensors: the host's, Triton's, or those for any device."""
    if on_host(arrays):
        return host_ops()
    places: dict[torch.device, list[int]] = {}
    for i, x in enumerate(arrays):
        places.setdefault(x.device, []).append(i)
    if len(places) > 1:
        return SeveralDevices({at: (ops_of([arrays[i] for i in which]), which) for at, which in places.items()})
    kernels = kernels_for(arrays[0].device)
    return kernels.TritonOps() if kernels else DEVICE


def _dense(g: Tensor, after: list[Callable[[], object]]) -> Tensor:
    """Return the stored values of a sparse gradient, coalesced; writing to them changes the gradient.

    If it was not coalesced, a function that copies the result to it is appended to ``after``.
    """
    if g.layout is torch.strided:
        return g
    if g.layout is not torch.sparse_coo:
        return g.values()
    if not g.is_coalesced():
        merged = g.coalesce()
        after.append(lambda: g.copy_(merged))
        return merged.values()
    return g.values()


def _any_may_change(coefficients: Sequence[Coefficient]) -> bool:
    """Whether any gradient may change, if the first one does not."""
    return not is_shared(coefficients) and any(map(_may_change, coefficients))


def _may_change(c: Coefficient) -> bool:
    return not isinstance(c.changed, bool) or c.changed


def _unexpanded(x: Tensor) -> Tensor:
    """Return a view of a broadcast tensor that has each element in memory once."""
    for axis, step in enumerate(x.stride()):
        if step == 0 and x.shape[axis] > 1:
            x = x.narrow(axis, 0, 1)
    return x
