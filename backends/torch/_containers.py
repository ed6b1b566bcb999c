"""Conversion of containers of tensors, as ``torch.func.grad`` returns them, to leaves and back."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from gradclip import _checks
from gradclip import _namespace as ns
from gradclip._tree import _paths, _walk
from gradclip._weights import refuse_weights
from gradclip._words import kind
from gradclip.backends.torch._explain import names_of
from gradclip.backends.torch._leaves import TorchLeaves, leaves_found, leaves_of
from gradclip.backends.torch._walk import Found, unexpected, walk
from gradclip.backends.torch.ops._device import DEVICE
from gradclip.backends.torch.ops._ownership import is_distributed, refuse_shards

_WHAT_TAKES_PARAMETERS = (
    "pass gradients, such as [p.grad for p in parameters], or use a function whose name ends with _: it takes "
    "parameters, modules and optimizers, and clips their .grad in place"
)
_OF_ALL = (
    "because norms of whole parameters are wanted; use get_total_norm(model, group=model.process_group), or FSDP2 "
    "(fully_shard)"
)


def flatten(container: object) -> TorchLeaves:
    """Return the leaves of a container of gradients, for functions that return new tensors.

    Raises
    ------
    TypeError
        If a leaf is not a plain, dense tensor of floating-point numbers, or the container holds weights.
    """
    found, rebuild, paths = _tensors(container, "grads")
    _refuse_weights(container, found, paths)
    _check_plain(found, paths)
    leaves = replace(leaves_of(found, paths), rebuild=rebuild)
    return replace(leaves, ops=DEVICE) if is_recorded(found) else leaves


def flatten_measured(container: object, *, weights: bool) -> TorchLeaves:
    """Return leaves for functions that compute norms: tensors in a container, or gradients of a Module or Optimizer.

    Raises
    ------
    TypeError
        If a leaf is not a tensor of floating-point numbers; or, unless ``weights``, if the container holds weights.
    ValueError
        With ``weights``, if FSDP1 split the parameters of the Module or Optimizer over ranks.
    """
    if isinstance(container, Module | Optimizer):
        there = walk(container, "parameters")
        if weights:  # the whole norm is wanted, not this process's part of it
            refuse_shards(there.holders, lambda i: f"parameters[{i}]", _OF_ALL)
        names = names_of(there)
        return replace(leaves_found(there), rebuild=lambda values: dict(zip(names, values, strict=False)))
    found, rebuild, paths = _tensors(container, "grads")
    if not weights:
        _refuse_weights(container, found, paths)
    if any(map(is_distributed, {type(x): x for x in found}.values())):
        return replace(leaves_found(Found(found, paths(), found)), rebuild=rebuild)
    leaves = replace(leaves_of(found, paths), rebuild=rebuild)
    return replace(leaves, ops=DEVICE) if is_recorded(leaves.arrays) else leaves


def flatten_params(container: object, grads: TorchLeaves) -> TorchLeaves:
    """Return the parameters that belong to gradients, one for each position.

    Autograd records operations on them only if it records those on the gradients: then the result can be differentiated
    with respect to both.
    """
    found, rebuild, paths = _tensors(container, "params")
    _check_plain(found, paths)
    for i in {x.dtype: i for i, x in enumerate(found)}.values():
        _checks.leaf(found[i], paths, i)
    if not is_recorded(grads.arrays):
        found = [x.detach() for x in found]
    return TorchLeaves(found, DEVICE, range(len(found)), rebuild, paths)


def is_recorded(arrays: list[Tensor]) -> bool:
    """Whether autograd records operations on any of these tensors."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in arrays)


def _tensors(container: object, name: str) -> tuple[list[Tensor], Callable[[list[Any]], Any], Callable[[], list[str]]]:
    """Return the tensors in a container, a function that rebuilds it from new tensors, and one that names them."""
    found, rebuild = _walk(container)

    def paths() -> list[str]:
        return _paths(container, name)

    if not all(issubclass(cls, Tensor) for cls in set(map(type, found))):
        i = next(i for i, x in enumerate(found) if not isinstance(x, Tensor))
        _refuse(found[i], paths, i)
    return found, rebuild, paths


def _refuse(x: object, paths: Callable[[], list[str]], position: int) -> None:
    """Raise TypeError for an object that is no tensor."""
    if isinstance(x, Module | Optimizer):
        raise TypeError(
            f"{paths()[position]} is {kind(x)}, expected a tensor or a container of tensors; {_WHAT_TAKES_PARAMETERS}"
        )
    if ns.is_array(x):
        what, remedy = unexpected(x)
        raise TypeError(f"{paths()[position]} is {what}, expected a tensor; {remedy}")
    _checks.leaf(x, paths, position)


def _refuse_weights(container: object, found: list[Tensor], paths: Callable[[], list[str]]) -> None:
    refuse_weights(container, "grads", found, set(map(type, found)), paths, _WHAT_TAKES_PARAMETERS)


def _check_plain(found: list[Tensor], paths: Callable[[], list[str]]) -> None:
    """Check that tensors are plain and dense, so that clipped copies of them can be made."""
    for i, x in enumerate(found):
        if is_distributed(x):
            raise TypeError(
                f"{paths()[i]} is a DTensor, expected a plain tensor; clip DTensors in place, with a function whose "
                "name ends with _, or pass their parts"
            )
        if x.layout is not torch.strided:
            raise TypeError(
                f"{paths()[i]} has layout {x.layout}, expected a dense tensor; clip it in place, with a function whose "
                "name ends with _, or pass its to_dense()"
            )
