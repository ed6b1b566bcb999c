"""Every container of parameters, to gradients with their names."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import Optimizer


class Found(NamedTuple):
    """What a container holds.

    Parameters
    ----------
    grads : list of Tensor
        The gradients that there are.
    paths : list of str
        Their names, such as ``lstm.weight_hh_l0.grad``.
    holders : list of Tensor
        What may have one: all parameters.
    """

    grads: list[Tensor]
    paths: list[str]
    holders: list[Tensor]


def walk(source: Any, name: str) -> Found:
    """Return the gradients in a container.

    Raises
    ------
    TypeError
        If it holds anything but parameters, or nothing but gradients where parameters are wanted.
    """
    found = list(_items(source, name))
    if isinstance(source, Mapping) and found and all(_is_gradient(p) for _, p in found):
        grads = [p for _, p in found]
        return Found(grads, [path for path, _ in found], grads)
    if found and all(_is_gradient(p) for _, p in found):
        raise TypeError(
            f"{found[0][0]} is a tensor without .grad that needs none, expected parameters: it looks like a gradient, "
            "and its own gradient would be clipped instead of it. Pass the parameters, or pass gradients as a dict "
            "{name: gradient}"
        )
    pairs = [(f"{path}.grad", p.grad) for path, p in found if not _is_gradient(p)]
    kept = [(path, g) for path, g in pairs if g is not None]
    return Found([g for _, g in kept], [path for path, _ in kept], [p for _, p in found])


def tensors(source: Any, name: str) -> Found:
    """Return the tensors themselves in a container; of a Module or Optimizer, the gradients."""
    if isinstance(source, Module | Optimizer):
        return walk(source, name)
    found = list(_items(source, name))
    kept = [x for _, x in found]
    return Found(kept, [path for path, _ in found], kept)


def _items(source: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield everything that may be a parameter, with a name."""
    if isinstance(source, Tensor):
        yield name, source
    elif isinstance(source, Module):
        yield from source.named_parameters()
    elif isinstance(source, Optimizer):
        yield from _items(source.param_groups, f"{name}.param_groups")
    elif _is_group(source):
        yield from _items(source["params"], f"{name}['params']")
    elif isinstance(source, Mapping):
        for key, value in source.items():
            yield from _items(value, f"{name}[{key!r}]")
    elif isinstance(source, Iterable) and not isinstance(source, str | bytes):
        for i, item in enumerate(source):
            yield from _item(item, f"{name}[{i}]")
    elif source is not None:
        raise TypeError(
            f"{name} is a {type(source).__name__}, expected a tensor, a Module, an Optimizer, or an iterable of "
            "parameters, of (name, parameter) or of param groups; pass model.parameters() or the model"
        )


def _item(item: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
        yield from _items(item[1], item[0])
    else:
        yield from _items(item, name)


def _is_group(source: Any) -> bool:
    return isinstance(source, Mapping) and "params" in source and not isinstance(source["params"], Tensor)


def _is_gradient(x: Tensor) -> bool:
    """Whether a tensor is no parameter: it has no gradient and will get none."""
    if isinstance(x, Parameter):
        return False
    if not x.is_leaf:
        return not x.retains_grad
    return not x.requires_grad and x.grad is None
