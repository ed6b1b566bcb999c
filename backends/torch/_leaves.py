"""What holds parameters or gradients in PyTorch, to the gradients in it, each once and ready to be clipped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import GeneratorType
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter

from gradclip import _checks
from gradclip._coefficient import Coefficient
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
    """Gradients, each once.

    Parameters
    ----------
    after : sequence of callables
        What has to be done after the leaves were written, to bring that into gradients with a layout of their own.
    numels : sequence of int or None
        How many elements each whole gradient has, where leaves are the parts that a rank has, or the values stored.
    """

    ops: TensorOps
    after: Sequence[Callable[[], object]] = ()
    numels: Sequence[int] | None = None

    def decide(self, rule: Rule) -> Decision:
        """Return the norm of all gradients, and what they are to be multiplied by; PyTorch warns of no overflow."""
        return self.ops.decide(self.arrays, rule)

    def scale_(self, coefficients: Sequence[Coefficient], pure: str) -> None:
        """Multiply each gradient by its coefficient in place; on a host, nothing is done where nothing changes.

        The check for overlaps costs as much as the norm of many small gradients: it is made when something is written.
        """
        same = coefficients and coefficients.count(coefficients[0]) == len(coefficients)  # as mostly
        if any(map(_may_change, coefficients[:1] if same else coefficients)):
            self.ops.scale_(self.targets(pure), coefficients)  # PyTorch warns of no overflow
            self.finish()

    def targets(self, pure: str) -> list[Tensor]:
        """Return what to write to: each element in memory once, though a broadcast gradient has it many times."""
        if self.ops.apart(self.arrays):
            return self.arrays
        targets = [_unexpanded(x) for x in self.arrays]
        if all(map(has_memory, targets)):
            _checks.writable(targets, self.array_paths, f"backends.torch.{pure}")
        return targets

    def finish(self) -> None:
        """Bring what was written into gradients with a layout of their own."""
        for action in self.after:
            action()


def gradients(parameters: Parameters, name: str = "parameters", caller: str = "") -> TorchLeaves:
    """Return the gradients of parameters; of a dict of tensors that are no parameters, these themselves.

    Raises
    ------
    TypeError
        If something else stands in the place of a parameter: gradients, for example, which would not be clipped.
    """
    if type(parameters) in (list, tuple, GeneratorType):
        parameters = list(parameters)
        if set(map(type, parameters)) == {Parameter}:  # as nearly always
            found = [g for p in parameters if (g := p.grad) is not None]
            return leaves_of(found, lambda: paths_of([p.grad for p in parameters], name))
    return leaves_found(walk(parameters, name, caller))


def leaves_found(found: Found) -> TorchLeaves:
    """Return leaves for the gradients of a container, also where they lie on a mesh of devices."""
    grads, paths, holders = found
    if not any(map(is_distributed, {type(x): x for x in holders}.values())):
        return leaves_of(grads, lambda: paths)
    if not grads:  # there may be some on another rank, which would wait for this one
        grads, paths = [torch.empty(0)], ["nothing"]
    scopes = {id(g): scope_of(g, path) for g, path in zip(grads, paths, strict=True)}
    parts = {id(g): part_of(g) for g in dict.fromkeys(grads)}
    leaves = leaves_of([parts[id(g)] for g in grads], lambda: paths)
    every = list(dict.fromkeys([*map(cut, holders), *scopes.values()]))
    numels = [g.numel() for g in dict.fromkeys(grads)]
    return replace(leaves, ops=ShardedOps(leaves.ops, list(scopes.values()), every), numels=numels)


def leaves_of(grads: list[Tensor], paths: Callable[[], list[str]]) -> TorchLeaves:
    """Return leaves for tensors that are gradients: each once, sparse ones as the values that they store."""
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
    """Return the operations for tensors: of the host's memory, in Triton, or those that any device has."""
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
    """Return a name for each gradient that there is."""
    return [f"{name}[{i}].grad" for i, g in enumerate(found) if g is not None]


def _dense(g: Tensor, after: list[Callable[[], object]]) -> Tensor:
    """Return the values that a sparse gradient stores, each element once; they are written where they lie."""
    if g.layout is torch.strided:
        return g
    if g.layout is not torch.sparse_coo:
        return g.values()
    if not g.is_coalesced():
        merged = g.coalesce()
        after.append(lambda: g.copy_(merged))
        return merged.values()
    return g.values()


def _may_change(c: Coefficient) -> bool:
    return not isinstance(c.changed, bool) or c.changed


def _unexpanded(x: Tensor) -> Tensor:
    """Return the part of a broadcast tensor that is in memory."""
    for axis, step in enumerate(x.stride()):
        if step == 0 and x.shape[axis] > 1:
            x = x.narrow(axis, 0, 1)
    return x
