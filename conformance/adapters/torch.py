"""gradclip.backends.torch: PyTorch's signatures. Gradients are passed as a dict from their paths.

The adapter writes in place. For a pure function, the binding clips a copy, in which a leaf that occurs twice is one
leaf too. Tests of functions that the adapter lacks are skipped.
"""

from collections.abc import Callable, Iterator
from typing import Any

import optree
import pytest

from gradclip.conformance import frameworks, trees
from gradclip.conformance.adapters import Offered
from gradclip.conformance.targets import Target, load, variant

NAMES = {"clip_value": "max_value", "norm_type": "ord", "total_norm": "norm"}
"""gradclip's names for PyTorch's arguments. They are replaced in messages, so that tests find the names."""


class Functions:
    """Functions with gradclip's names, as far as the adapter can do what they do."""

    def __init__(self, module: Any) -> None:
        self._torch = module

    def global_norm(self, grads: Any, *, ord: Any = 2.0) -> Any:
        return _named(self._torch.get_total_norm, _by_path(grads), _order(ord))

    def leaf_norms(self, grads: Any, *, ord: Any = 2.0) -> Any:
        norms = _named(self._torch.grad_norms, _by_path(grads), _order(ord))
        leaves, treedef = optree.tree_flatten(grads)
        if not _has_dataclass(leaves):
            return optree.tree_unflatten(treedef, norms.values())
        values = iter(norms.values())
        return trees.rebuild(grads, lambda _: next(values))

    def clip_by_global_norm_(self, grads: Any, max_norm: Any, *, ord: Any = 2.0, **options: Any) -> Any:
        return _named(self._torch.clip_grad_norm_, _by_path(grads), max_norm, _order(ord), **options)

    def clip_by_global_norm(self, grads: Any, max_norm: Any, **options: Any) -> Any:
        copies = _copied(grads)
        return copies, self.clip_by_global_norm_(copies, max_norm, **options)

    def clip_by_value(self, grads: Any, max_value: Any, *, min_value: Any = None) -> Any:
        copies = _copied(grads)
        self.clip_by_value_(copies, max_value, min_value=min_value)
        return copies

    def clip_with_norm(self, grads: Any, max_norm: Any, norm: Any) -> Any:
        copies = _copied(grads)
        self.clip_with_norm_(copies, max_norm, norm)
        return copies

    def clip_by_value_(self, grads: Any, max_value: Any, *, min_value: Any = None) -> None:
        if min_value is not None:
            pytest.skip("gradclip.backends.torch does not offer bounds that are not symmetric")
        _named(self._torch.clip_grad_value_, _by_path(grads), max_value)

    def clip_with_norm_(self, grads: Any, max_norm: Any, norm: Any) -> None:
        _named(self._torch.clip_grads_with_norm_, _by_path(grads), max_norm, norm)


def _by_path(grads: Any) -> dict[str, Any]:
    """Return a dict from path to gradient; arrays in dataclasses, for which optree has no path, are numbered."""
    accessors, leaves, _ = optree.tree_flatten_with_accessor(grads)
    if _has_dataclass(leaves):
        return {f"grads[{i}]": x for i, x in enumerate(trees.arrays(grads))}
    return {accessor.codify("grads"): leaf for accessor, leaf in zip(accessors, leaves, strict=True)}


def _has_dataclass(leaves: list[Any]) -> bool:
    return any(hasattr(leaf, "__dataclass_fields__") for leaf in leaves)


def _copied(grads: Any) -> Any:
    """Return the container with a copy of each tensor; a tensor that occurs twice is copied once."""
    copies: dict[int, Any] = {}

    def copy(x: Any) -> Any:
        return copies.setdefault(id(x), x.clone()) if hasattr(x, "clone") else x

    return trees.rebuild(grads, copy)


def _order(ord: Any) -> Any:
    if isinstance(ord, str):
        pytest.skip('PyTorch takes orders as strings, such as "inf"')
    return ord


def _named(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        return function(*args, **options)
    except (TypeError, ValueError) as e:
        message = str(e)
        for theirs, ours in NAMES.items():
            message = message.replace(theirs, ours)
        raise type(e)(message) from e


def targets(module: Any, name: str) -> Iterator[Target]:
    """Yield the adapter on tensors in the host's memory, and on a GPU if there is one; without derivatives."""
    torch, functions = load("torch"), Offered(Functions(module), name)
    yield frameworks.Torch(torch, functions, name, frameworks.HOST | {"shares"})
    if torch.cuda.is_available():
        yield frameworks.CudaTorch(torch, functions, variant(name, "cuda"), frameworks.HOST - {"host", "quick"})
