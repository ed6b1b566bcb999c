"""Conversion of PyTorch's containers of parameters or gradients to leaves: distinct gradients and their `Ops`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import GeneratorType
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter

from gradclip import _checks
from gradclip._coefficient import Coefficient, is_shared
from gradclip._decision import Decision, Rule
from gradclip._tree import Leaves
from gradclip.backends.torch._gpu import kernels_for
from gradclip.backends.torch._walk import Found, walk
from gradclip.backends.torch.ops._device import DEVICE, TensorOps, has_memory
from gradclip.backends.torch.ops._devices import SeveralDevices
from gradclip.backends.torch.ops._host import host_ops, on_host, plain_host_ops
from gradclip.backends.torch.ops._sharded import ShardedOps, cut, is_distributed, part_of, scope_of

Parameters: TypeAlias = Any
"""A tensor, a Module, an Optimizer, or an iterable of tensors, of (name, tensor) or of param groups; or a dict."""


@dataclass(frozen=True, slots=True)
class TorchLeaves(Leaves):
    """Distinct gradients.

    Parameters
    ----------
    after : sequence of callables
        Functions to call after the leaves were written. They copy the result to uncoalesced sparse gradients.
    numels : sequence of int or None
        The numel of each whole gradient, if leaves are parts of DTensors or the stored values of sparse gradients.
    """

    ops: TensorOps
    after: Sequence[Callable[[], object]] = ()
    numels: Sequence[int] | None = None

    def decide(self, rule: Rule) -> Decision:
        """Return the norm of all gradients and the coefficient. PyTorch gives no warning of overflow to suppress."""
        return self.ops.decide(self.arrays, rule)

    def scale_(self, coefficients: Sequence[Coefficient], pure: str) -> None:
        """Multiply each gradient by its coefficient in place; on a host, write only if a gradient changes.

        The check for overlaps takes as long as the norm of many small gradients: it is made only before a write.
        """
        if coefficients and (_may_change(coefficients[0]) or _any_may_change(coefficients)):
            self.ops.scale_(self.targets(pure), coefficients)  # PyTorch warns of no overflow
            self.finish()

    def targets(self, pure: str) -> list[Tensor]:
        """Return the tensors to write to: broadcast gradients without their repeated elements; raise if two overlap."""
        if self.ops.apart(self.arrays):
            return self.arrays
        targets = [_unexpanded(x) for x in self.arrays]
        if all(map(has_memory, targets)):
            _checks.writable(targets, self.array_paths, f"backends.torch.{pure}")
        return targets

    def finish(self) -> None:
        """Copy the result to uncoalesced sparse gradients."""
        for action in self.after:
            action()


def gradients(parameters: Parameters, name: str = "parameters", caller: str = "") -> TorchLeaves:
    """Return the gradients of parameters; for a dict of tensors that are no parameters, these tensors.

    Raises
    ------
    TypeError
        If something else is passed instead of a parameter: gradients, for example, which would not be clipped.
    """
    if type(parameters) in (list, tuple, GeneratorType):
        parameters = list(parameters)
        if set(map(type, parameters)) == {Parameter}:  # the usual case
            found = [g for p in parameters if (g := p.grad) is not None]
            return leaves_of(found, lambda: paths_of([p.grad for p in parameters], name))
    return leaves_found(walk(parameters, name, caller))


def leaves_found(found: Found) -> TorchLeaves:
    """Return leaves for the gradients of a container, which may be DTensors on a mesh."""
    grads, paths, holders = found
    if not any(map(is_distributed, {type(x): x for x in holders}.values())):
        return leaves_of(grads, lambda: paths)
    if not grads:  # another rank may have some and would wait for this one in a collective
        grads, paths = [torch.empty(0)], ["nothing"]
    scopes = {id(g): scope_of(g, path) for g, path in zip(grads, paths, strict=True)}
    parts = {id(g): part_of(g) for g in dict.fromkeys(grads)}
    leaves = leaves_of([parts[id(g)] for g in grads], lambda: paths)
    every = list(dict.fromkeys([*map(cut, holders), *scopes.values()]))
    numels = [g.numel() for g in dict.fromkeys(grads)]
    return replace(leaves, ops=ShardedOps(leaves.ops, list(scopes.values()), every), numels=numels)


def leaves_of(grads: list[Tensor], paths: Callable[[], list[str]]) -> TorchLeaves:
    """Return leaves for gradients: distinct ones, and of sparse ones the stored values."""
    if (ops := plain_host_ops(grads)) is not None:
        return TorchLeaves(grads, ops, range(len(grads)), list, paths)
    slots: Sequence[int] = range(len(grads))
    arrays = grads
    if len(set(map(id, grads))) < len(grads):
        first: dict[int, int] = {}
        slots = [first.setdefault(id(g), len(first)) for g in grads]
        arrays = list({id(g): g for g in grads}.values())
    after: list[Callable[[], object]] = []
    numels = None
    if any(g.layout is not torch.strided for g in arrays):
        numels = [g.numel() for g in arrays]
        arrays = [_dense(g, after) for g in arrays]
    seen: dict[torch.dtype, int] = {}
    for i, g in enumerate(arrays):
        if g.dtype not in seen:
            seen[g.dtype] = i
            _checks.leaf(g, paths, slots.index(i))
    return TorchLeaves(arrays, ops_of(arrays), slots, list, paths, after, numels)


def ops_of(arrays: Sequence[Tensor]) -> TensorOps:
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


def paths_of(found: Sequence[Tensor | None], name: str) -> list[str]:
    """Return a path for each gradient that is not None."""
    return [f"{name}[{i}].grad" for i, g in enumerate(found) if g is not None]


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
    """Whether a gradient may change, of which the first does not."""
    return not is_shared(coefficients) and any(map(_may_change, coefficients))


def _may_change(c: Coefficient) -> bool:
    return not isinstance(c.changed, bool) or c.changed


def _unexpanded(x: Tensor) -> Tensor:
    """Return a view of a broadcast tensor that has each element in memory once."""
    for axis, step in enumerate(x.stride()):
        if step == 0 and x.shape[axis] > 1:
            x = x.narrow(axis, 0, 1)
    return x
