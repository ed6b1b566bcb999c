"""Weights are no gradients. PyTorch's can be told from gradients by their type; it is not imported for that."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from gradclip._types import Array


def refuse_weights(leaves: Sequence[Array], kinds: Iterable[type], paths: Callable[[], list[str]]) -> None:
    """Check that no leaf is a parameter of PyTorch; ``kinds`` are the types of the leaves, each once.

    Raises
    ------
    TypeError
        If one is, with its path.
    """
    if not any(map(_may_be_weight, kinds)):
        return
    for i, x in enumerate(leaves):
        if _is_weight(x):
            raise TypeError(
                f"{paths()[i]} is a torch.nn.Parameter, expected a gradient: it holds weights; pass [p.grad for p in "
                "parameters], or use gradclip.backends.torch, whose functions take parameters and clip their .grad"
            )


@lru_cache(maxsize=256)
def _may_be_weight(kind: Any) -> bool:
    """Whether a type is a subclass of PyTorch's Tensor, as Parameter is; what is a plain Tensor is no parameter."""
    return any(base.__name__ == "Tensor" and base.__module__ == "torch" for base in kind.__mro__[1:])


def _is_weight(x: Any) -> bool:
    """Whether a tensor is a Parameter: by its type, or by the mark on those that keep a type of their own (DTensor)."""
    if getattr(x, "_is_param", False):
        return True
    return any(base.__name__ == "Parameter" and base.__module__ == "torch.nn.parameter" for base in type(x).__mro__)
