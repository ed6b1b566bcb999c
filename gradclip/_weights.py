"""The check that no PyTorch parameter or state_dict is passed as gradients. PyTorch is not imported for it."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from gradclip._namespace import NUMPYS
from gradclip._types import AnyArray

_REMEDY = (
    "pass [p.grad for p in parameters], or use gradclip.backends.torch, whose functions take parameters and clip their "
    ".grad"
)


def refuse_weights(
    container: object,
    name: str,
    leaves: Sequence[AnyArray],
    kinds: set[Any],
    paths: Callable[[], list[str]],
    remedy: str = _REMEDY,
) -> None:
    """Check that no leaf is a parameter of PyTorch, and that no state_dict is among the containers.

    Parameters
    ----------
    container : object
        The container of the leaves.
    name : str
        The name of the container in error messages.
    leaves, kinds, paths
        The leaves, their types, and a function that returns a name for each leaf.
    remedy : str
        What to do instead.

    Raises
    ------
    TypeError
        If there is one; the message has its path.
    """
    if kinds == NUMPYS or not any(map(_is_tensor, kinds)):
        return
    if any(map(_may_be_weight, kinds)):
        for i, x in enumerate(leaves):
            if is_weight(x):
                raise TypeError(
                    f"{paths()[i]} is a torch.nn.Parameter, expected a gradient: it holds weights; {remedy}"
                )
    for path, state in _states(container, name):
        raise TypeError(f"{path} is {state}, expected gradients; {remedy}")


def state_of(source: object) -> str:
    """Return "a state_dict ..." or the like for a mapping that holds the state of a module or an optimizer, else "".

    A module's state_dict has an attribute ``_metadata``. A plain dict that is made from it has none, and cannot be
    distinguished from a dict of gradients.
    """
    if not isinstance(source, Mapping):
        return ""
    if hasattr(source, "_metadata") and not any(map(is_weight, source.values())):
        return "a state_dict, which holds weights"
    if "state" in source and "param_groups" in source:  # PyTorch 2.10 does not trace comparisons of keys() with a set
        return "the state_dict of an optimizer"
    keys: set[Any] = {type(key) for key, value in source.items() if isinstance(value, Mapping)}
    if any(map(_is_tensor, keys)):
        return "the state of an optimizer"
    return ""


def is_weight(x: Any) -> bool:
    """Whether a tensor is a Parameter: by its type, or for other types (DTensor) by PyTorch's mark ``_is_param``."""
    kind: Any = type(x)  # any type is hashable
    return _is_parameter(kind) or getattr(x, "_is_param", False) is True


def _states(container: object, name: str) -> Iterator[tuple[str, str]]:
    """Yield the path of each state of a module or an optimizer in a container, and its description."""
    if state := state_of(container):
        yield name, state
        return
    for path, value in _inner(container, name):
        yield from _states(value, path)


def _inner(container: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield each container directly within a container, with its path."""
    items: Iterable[tuple[str, Any]] = ()
    if isinstance(container, list | tuple | deque):
        if not _holds_containers(container):
            return
        items = ((f"{name}[{i}]", value) for i, value in enumerate(container))
    elif isinstance(container, Mapping):
        if not _holds_containers(container.values()):
            return
        items = ((f"{name}[{key!r}]", value) for key, value in container.items())
    elif dataclasses.is_dataclass(container) and not isinstance(container, type):
        items = ((f"{name}.{f.name}", getattr(container, f.name)) for f in dataclasses.fields(container))
    for path, x in items:
        kind: Any = type(x)  # any type is hashable
        if _is_container(kind):
            yield path, x


def _holds_containers(values: Iterable[Any]) -> bool:
    return any(map(_is_container, set(map(type, values))))


@lru_cache(maxsize=256)
def _is_container(kind: Any) -> bool:
    return issubclass(kind, Mapping | list | tuple | deque) or dataclasses.is_dataclass(kind)


@lru_cache(maxsize=256)
def _is_tensor(kind: Any) -> bool:
    """Whether a type is PyTorch's Tensor or a subclass of it."""
    return any(base.__name__ == "Tensor" and base.__module__ == "torch" for base in kind.__mro__)


@lru_cache(maxsize=256)
def _may_be_weight(kind: Any) -> bool:
    """Whether a type is a proper subclass of PyTorch's Tensor, as Parameter is. A plain Tensor is no parameter."""
    return any(_is_tensor(base) for base in kind.__mro__[1:])


def _is_parameter(kind: Any) -> bool:
    return any(base.__name__ == "Parameter" and base.__module__ == "torch.nn.parameter" for base in kind.__mro__)
