"""Search of any container of parameters for gradients and their paths."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import Optimizer

from gradclip._weights import state_of
from gradclip._words import kind
from gradclip.backends.torch._groups import is_clipped


class Found(NamedTuple):
    """The gradients in a container.

    Parameters
    ----------
    grads : list of Tensor
        The gradients that are not None.
    paths : list of str
        Their paths, such as ``lstm.weight_hh_l0.grad``.
    holders : list of Tensor
        All parameters, also those without a gradient.
    """

    grads: list[Tensor]
    paths: list[str]
    holders: list[Tensor]


def walk(source: Any, name: str, caller: str = "") -> Found:
    """Return the gradients in a container.

    Parameters
    ----------
    source : object
        Parameters in any container, or a dict of gradients.
    name : str
        The name of ``source`` in error messages.
    caller : str
        The public function that was called, for error messages.

    Raises
    ------
    TypeError
        If it holds anything but parameters: None, a state_dict (weights without gradients), or gradients that are not
        in a dict.
    """
    found = named_tensors(source, name, caller)
    bare = [_is_gradient(p) for _, p in found]
    if any(bare):
        if isinstance(source, Mapping) and not _is_group(source) and all(bare):
            grads = [p for _, p in found]
            return Found(grads, [path for path, _ in found], grads)
        _check_bare(source, found, bare, caller)
    pairs = [(f"{path}.grad", p.grad) for (path, p), skipped in zip(found, bare, strict=True) if not skipped]
    kept = [(path, g) for path, g in pairs if g is not None]
    return Found([g for _, g in kept], [path for path, _ in kept], [p for _, p in found])


def refuse_gradients(named: list[tuple[str, Tensor]], caller: str) -> None:
    """Raise TypeError, as `walk` does, if all of these tensors are gradients in the place of parameters."""
    bare = [_is_gradient(p) for _, p in named]
    if any(bare):
        _check_bare(named, named, bare, caller)


def parameters_in(source: Any, name: str) -> Sequence[Tensor] | None:
    """Return all parameters in a usual container, in the order in which `walk` finds them, without their names.

    None if it is another container, or holds anything but parameters.
    """
    found: Sequence[Any] = ()
    if type(source) in (list, tuple):
        found = [p for _, p in source] if _are_named(source) else source
    elif isinstance(source, Module):
        found = list(source.parameters())
    elif isinstance(source, Optimizer):
        groups = enumerate(source.param_groups)
        found = [p for i, group in groups if is_clipped(group, f"{name}.param_groups[{i}]") for p in group["params"]]
    return found if found and _are_parameters(found) else None


def _are_named(items: Sequence[Any]) -> bool:
    """Whether all items are (name, parameter)."""
    return (
        set(map(type, items)) == {tuple} and set(map(len, items)) == {2} and all(type(name) is str for name, _ in items)
    )


def _are_parameters(tensors: Sequence[Any]) -> bool:
    """Whether all are parameters: plain ones, whose type says it, or DTensors."""
    kinds = set(map(type, tensors))
    if kinds == {Parameter}:
        return True
    return all(kind is Parameter or issubclass(kind, Tensor) for kind in kinds) and all(map(_is_parameter, tensors))


def _is_parameter(x: Tensor) -> bool:
    """Whether a tensor is a Parameter by its type or, as DTensors are, by a mark; ``isinstance`` takes longer."""
    return type(x) is Parameter or getattr(x, "_is_param", False)


def tensors(source: Any, name: str, caller: str = "") -> Found:
    """Return the tensors in a container, not their gradients; of Modules and Optimizers, the gradients."""
    if isinstance(source, Module | Optimizer):
        return walk(source, name, caller)
    found = named_tensors(source, name, caller, strict=False)
    kept = [x for _, x in found]
    return Found(kept, [path for path, _ in found], kept)


def named_tensors(source: Any, name: str, caller: str = "", *, strict: bool = True) -> list[tuple[str, Tensor]]:
    """Return the tensors in a container with their names.

    Parameters
    ----------
    source, name, caller
        As for `walk`.
    strict : bool
        Whether the tensors must be parameters, so that a state_dict raises; otherwise any tensors are taken.

    Raises
    ------
    TypeError
        If it holds anything but tensors.
    """
    if isinstance(source, Module):
        return list(source.named_parameters())
    found: list[tuple[str, Any]] = [(name, None)] if source is None else list(_items(source, name, strict=strict))
    if not all(issubclass(cls, Tensor) for cls in {type(x) for _, x in found}):
        path, x = next((path, x) for path, x in found if not isinstance(x, Tensor))
        what, remedy = unexpected(x)
        expected = _PARAMETERS if strict else _TENSORS
        usual = "model.parameters() or the model" if strict else "[p.grad for p in model.parameters()] or the model"
        raise TypeError(f"{_at(caller)}{path} is {what}, expected {expected}; {remedy or f'pass {usual}'}")
    return found


_PARAMETERS = "a tensor, a Module, an Optimizer, or an iterable of parameters, of (name, parameter) or of param groups"
_TENSORS = "a tensor, a Module, an Optimizer, or an iterable of tensors or of (name, tensor)"


def _items(source: Any, name: str, *, strict: bool) -> Iterator[tuple[str, Any]]:
    """Yield the path and value of everything in a container: tensors, and objects that are no tensors."""
    if isinstance(source, Tensor):
        yield name, source
    elif isinstance(source, Module | Optimizer) and not strict:
        found = walk(source, name)
        yield from zip(found.paths, found.grads, strict=True)
    elif isinstance(source, Module):
        yield from ((f"{name}.{inner}", p) for inner, p in source.named_parameters())
    elif isinstance(source, Optimizer):
        yield from _items(source.param_groups, f"{name}.param_groups", strict=strict)
    elif strict and state_of(source):
        yield name, source
    elif _is_group(source):
        if not is_clipped(source, name):
            return
        yield from _items(source["params"], f"{name}['params']", strict=strict)
    elif isinstance(source, Mapping):
        for i, (key, value) in enumerate(source.items()):
            path = f"{name}[<tensor {i}>]" if isinstance(key, Tensor) else f"{name}[{key!r}]"
            if isinstance(value, Tensor):  # the usual case
                yield path, value
            else:
                yield from _items(value, path, strict=strict)
    elif isinstance(source, Iterable) and not isinstance(source, str | bytes) and not _is_array(source):
        for i, item in enumerate(source):
            named = isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)
            yield from _items(item[1] if named else item, item[0] if named else f"{name}[{i}]", strict=strict)
    elif source is not None:
        yield name, source


def unexpected(x: Any) -> tuple[str, str]:
    """Return what an object is that is no tensor, and the remedy, or an empty string for the usual remedy."""
    if state := state_of(x):
        return state, "pass the module or the optimizer itself"
    if isinstance(x, MethodType):
        return f"the method {x.__name__}", f"call it: {x.__name__}()"
    if _is_array(x):
        library = type(x).__module__.partition(".")[0].removesuffix("lib")
        where = f"gradclip.backends.{library}" if library in ("jax", "cupy") else "gradclip"
        return kind(x), f"pass PyTorch's tensors, or pass such arrays to the functions of {where}"
    return kind(x), ""


def _is_array(x: Any) -> bool:
    """Whether an object that is no tensor is an array of another library, not a container."""
    return hasattr(x, "dtype")


def _is_group(source: Any) -> bool:
    return isinstance(source, Mapping) and "params" in source and not isinstance(source["params"], Tensor | Mapping)


def _is_gradient(x: Tensor) -> bool:
    """Whether a tensor is no parameter: it has no gradient and will get none."""
    if isinstance(x, Parameter):
        return False
    if not x.is_leaf:
        return not x.retains_grad
    # In a graph of PyTorch 2.10, the .grad of a tensor that is computed there is not None, and no tensor either.
    return not x.requires_grad and not torch.is_tensor(x.grad)


def _check_bare(source: Any, found: list[tuple[str, Tensor]], bare: list[bool], caller: str) -> None:
    """Raise TypeError for tensors without .grad if all tensors are such, or if a dict has parameters, too."""
    first = next(path for (path, _), is_bare in zip(found, bare, strict=True) if is_bare)
    what = f"{_at(caller)}{first} is a tensor without .grad that needs none"
    if all(bare):
        raise TypeError(
            f"{what}, expected parameters: it looks like a gradient or a buffer, and its own gradient would be clipped "
            "instead of it. Pass the parameters, or pass gradients as a dict {name: gradient}"
        )
    if isinstance(source, Mapping) and not _is_group(source) and not hasattr(source, "_metadata"):
        raise TypeError(  # a state_dict is excluded: its tensors without .grad are buffers
            f"{what}, beside parameters, expected a dict of parameters or a dict of gradients; leave it out, or pass "
            "gradients only"
        )


def _at(caller: str) -> str:
    return f"{caller}(): " if caller else ""
