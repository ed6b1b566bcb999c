"""gradclip.backends.torch: the core's names, and those of PyTorch with PyTorch's signatures.

What is clipped in place is passed as a dict of gradients by their paths, or as parameters with these gradients.
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
    """The core's names; what is not here is the adapter's as it is."""

    def __init__(self, module: Any) -> None:
        self._torch = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)

    def clip_by_global_norm_(self, grads: Any, max_norm: Any, **options: Any) -> Any:
        return self._torch.clip_by_global_norm_(_by_path(grads), max_norm, **options)

    def clip_by_norm_(self, grads: Any, max_norm: Any, **options: Any) -> None:
        self._torch.clip_by_norm_(_by_path(grads), max_norm, **options)

    def clip_by_rms_(self, grads: Any, max_rms: Any) -> None:
        self._torch.clip_by_rms_(_by_path(grads), max_rms)

    def clip_by_value_(self, grads: Any, max_value: Any, **options: Any) -> None:
        self._torch.clip_by_value_(_by_path(grads), max_value, **options)

    def clip_with_norm_(self, grads: Any, max_norm: Any, norm: Any) -> None:
        self._torch.clip_with_norm_(_by_path(grads), max_norm, norm)

    def adaptive_grad_clip_(
        self, grads: Any, params: Any, clipping: Any = 0.01, *, eps: Any = 1e-3, axis: Any = None
    ) -> None:
        if axis is not None:
            pytest.skip(
                "gradclip.backends.torch knows the units of PyTorch's layers, and does not take others in place"
            )
        pairs = zip(_by_path(grads).items(), _by_path(params).values(), strict=True)
        self._torch.adaptive_grad_clip_({path: _parameter(g, w) for (path, g), w in pairs}, clipping, eps)


class DropIns:
    """gradclip's names for PyTorch's functions. Where a test wants a pure one, it gets a copy that is clipped.

    A leaf that stands in two places is one leaf in the copy too. Tests of functions that PyTorch lacks are skipped.
    """

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


def _parameter(grad: Any, weight: Any) -> Any:
    """Return a parameter that has these values and this gradient; what is no tensor, as it is."""
    if not hasattr(grad, "requires_grad"):
        return grad
    if grad.shape != weight.shape:
        raise ValueError(f"PyTorch lets no parameter of shape {weight.shape} have a gradient of shape {grad.shape}")
    p = load("torch.nn").Parameter(weight, requires_grad=False)
    p.grad = grad
    return p


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
    """Yield the adapter on tensors in the host's memory, and on a GPU if there is one: the core's names, PyTorch's."""
    torch = load("torch")
    names, drop_ins = Offered(Functions(module), name), Offered(DropIns(module), name)
    yield frameworks.Torch(torch, names, name, frameworks.HOST | {"grad", "shares", "torch"})
    yield frameworks.Torch(torch, drop_ins, variant(name, "nn.utils"), frameworks.HOST | {"shares"})
    if torch.cuda.is_available():
        on_gpu = frameworks.HOST - {"host", "quick"}
        yield frameworks.CudaTorch(torch, names, variant(name, "cuda"), on_gpu)
        yield frameworks.CudaTorch(torch, drop_ins, variant(name, "cuda,nn.utils"), on_gpu)
