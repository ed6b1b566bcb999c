"""Conversion of pytrees to leaves and back. Leaves that are not gradients, such as float0, are not changed."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import tree_util

from gradclip import _checks, _dtypes
from gradclip import _namespace as ns
from gradclip._partial import NormPartial
from gradclip._tree import Leaves, ops_for
from gradclip._types import AnyArray, AnyScalar
from gradclip._words import a
from gradclip.backends.jax._mesh import AxisName, axis_size, varying
from gradclip.backends.jax._ops import JaxOps

tree_util.register_pytree_node(
    NormPartial,
    lambda norm: ((norm.scale, norm.total), (norm.ord, norm.dtype)),
    lambda kind, pair: NormPartial(*pair, *kind),
)


@dataclass(frozen=True, slots=True)
class Parts:
    """A pytree split into two: its arrays, and its other leaves, which are returned unchanged.

    Parameters
    ----------
    arrays : pytree
        The pytree, with None in place of the other leaves.
    others : pytree or None
        The pytree, with None in place of the arrays; None if all leaves are arrays.
    """

    arrays: Any
    others: Any = None

    def restore(self, arrays: Any) -> Any:
        """Return the whole pytree, with new ``arrays`` in place of those that it was split into."""
        if self.others is None:
            return arrays
        return jax.tree.map(lambda y, x: x if y is None else y, self.others, arrays, is_leaf=_is_none)


def split(tree: Any, name: str = "grads") -> Parts:
    """Split a pytree into its arrays and its other leaves: float0, and functions.

    JAX returns float0 leaves as derivatives with respect to integers. They are NumPy arrays outside of ``jit``, and may
    be traced arrays inside. Functions are leaves of Equinox's modules.

    Raises
    ------
    TypeError
        If there is a leaf of another kind; the message has its path.
    """
    leaves, treedef = tree_util.tree_flatten(tree)
    if all(map(_is_concrete, {type(x): x for x in leaves}.values())):
        return Parts(tree)
    kept = [_passes(x) for x in leaves]
    if not all(kept):
        for i, x in enumerate(leaves):
            if not kept[i]:
                _check_kind(x, paths_of(tree, name), i)
    if not any(kept):
        return Parts(tree)
    arrays = [None if keep else x for x, keep in zip(leaves, kept, strict=True)]
    others = [x if keep else None for x, keep in zip(leaves, kept, strict=True)]
    return Parts(tree_util.tree_unflatten(treedef, arrays), tree_util.tree_unflatten(treedef, others))


def flatten(tree: Any, name: str = "grads", *, axes: tuple[str, ...] = (), beside: Any = None) -> Leaves:
    """Return the checked leaves of a pytree of arrays. A leaf that stands at two positions is two leaves.

    Parameters
    ----------
    tree : pytree of arrays
        The ``arrays`` that `split` returns.
    name : str
        The name of the pytree in error messages.
    axes : tuple of str
        The mesh axes that the leaves are split over.
    beside : pytree of arrays
        Other arrays of the same computation, such as parameters. If one is float64, so are sums and coefficients.

    Raises
    ------
    TypeError
        If a leaf is not of a floating-point dtype.
    """
    arrays, treedef = tree_util.tree_flatten(tree)
    paths = paths_of(tree, name)
    seen: set[Any] = set()
    for i, x in enumerate(arrays):
        if x.dtype not in seen:
            _checks.leaf(x, paths, i)
            seen.add(x.dtype)
    double = any(_dtypes.is_double(x.dtype) for x in (*arrays, *tree_util.tree_leaves(beside)))
    ops = JaxOps(jnp.float64 if double else jnp.float32, axes) if arrays else ops_for([])
    return Leaves(arrays, ops, range(len(arrays)), partial(tree_util.tree_unflatten, treedef), paths)


def alike(leaves: Leaves) -> list[tuple[list[int], Leaves]]:
    """Return the leaves in groups that vary over the same mesh axes, each with the positions of its leaves.

    Outside of ``shard_map`` there is one group. Results for leaves of different groups must not be stacked in one
    array, because its type would say that all of them vary over the axes of each.
    """
    groups: dict[frozenset[str], list[int]] = {}
    for i, x in enumerate(leaves.arrays):
        groups.setdefault(varying(x), []).append(i)
    return [(at, _part(leaves, at)) for at in groups.values()]


def in_order(groups: Sequence[tuple[list[int], Any]], results: Sequence[Sequence[Any]]) -> list[Any]:
    """Return one result for each leaf, in the leaves' order, from the results for each group that `alike` returned."""
    found = {i: x for (at, _), some in zip(groups, results, strict=True) for i, x in zip(at, some, strict=True)}
    return [found[i] for i in range(len(found))]


def _part(leaves: Leaves, at: Sequence[int]) -> Leaves:
    """Return some of the leaves, as a list."""
    return Leaves(
        [leaves.arrays[i] for i in at],
        leaves.ops,
        range(len(at)),
        list,
        lambda: [path for i, path in enumerate(leaves.paths()) if i in at],
    )


def paths_of(tree: Any, name: str) -> Callable[[], list[str]]:
    """Return a function that returns the path of each leaf, such as ``grads['layer'].bias``, for error messages."""
    return lambda: [f"{name}{tree_util.keystr(path)}" for path, _ in tree_util.tree_flatten_with_path(tree)[0]]


def refuse_local(axis_name: AxisName, tree: Any, name: str = "grads") -> None:
    """Raise ValueError if norms would be those of one device's parts, and the caller did not ask for that.

    It is known in ``shard_map`` with ``check_vma``, the default, where types say over which axes leaves vary. Along an
    axis of one device, the part is the whole.
    """
    if axis_name is not None:
        return
    for i, x in enumerate(tree_util.tree_leaves(tree)):
        axes = varying(x) if isinstance(x, jax.core.Tracer) else ()
        if split_over := [axis for axis in sorted(axes) if axis_size((axis,)) > 1]:
            among = tuple(split_over) if len(split_over) > 1 else split_over[0]
            raise ValueError(
                f"{paths_of(tree, name)()[i]} varies over the mesh axes {split_over} and axis_name is None, expected "
                "the axes that it is split over: each device would clip by the norm of its own part; pass "
                f"axis_name={among!r}, or axis_name=() if each device's part is to be taken for itself"
            )


def scalar(leaves: Leaves, value: AnyScalar | None, default: float | None) -> AnyScalar | None:
    """Return a number as an array of the coefficients' dtype, or ``default`` if it is None."""
    if value is None:
        return default
    dtype = leaves.ops.dtype if isinstance(leaves.ops, JaxOps) else jnp.float32
    return jnp.asarray(value, dtype=dtype)


def _is_none(x: object) -> bool:
    return x is None


def _is_concrete(x: object) -> bool:
    """Whether this is a JAX array that is not traced. Such an array is never float0."""
    return isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)


def _passes(x: Any) -> bool:
    return callable(x) or is_float0(x)


def is_float0(x: object) -> bool:
    """Whether this is an array of dtype float0: a derivative with respect to integers, which has no values."""
    return isinstance(x, jax.Array | np.ndarray) and bool(x.dtype == jax.dtypes.float0)


def _check_kind(x: AnyArray, paths: Callable[[], list[str]], position: int) -> None:
    if isinstance(x, jax.Array):
        return
    if ns.is_array(x) and not isinstance(x, np.ndarray | np.generic):
        raise TypeError(
            f"{paths()[position]} is {a(type(x).__module__)}.{type(x).__name__}, expected a JAX or NumPy array; "
            "convert it with jax.numpy.asarray, or use the adapter of its framework"
        )
    if dataclasses.is_dataclass(x):
        raise TypeError(
            f"{paths()[position]} is {a(type(x).__name__)}, a dataclass that JAX takes for a leaf, expected an "
            "array or a pytree; register it with jax.tree_util.register_dataclass"
        )
    _checks.leaf(x, paths, position)
