"""Properties of an array: its namespace and device, and whether its values may be read.

This is the only module that imports array_api_compat. It imports no framework: array_api_compat recognises the arrays
of frameworks that the user has imported.
"""

import warnings
from collections.abc import Hashable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import array_api_compat as compat
import numpy as np

from gradclip._dtypes import is_double
from gradclip._mlx import MlxNamespace, is_mlx_array, mlx_namespace
from gradclip._types import AnyArray, Axes, Namespace

_is_writeable = attrgetter("flags.writeable")

NUMPYS = {np.ndarray}
"""The types of leaves that are all NumPy's own arrays, of no subclass."""

_WITHOUT_NAMESPACE = {("torch", "Tensor"), ("dask", "Array"), ("cupy", "ndarray")}
"""Packages and classes of arrays that do not follow the standard by themselves, but with array_api_compat."""


def is_array(x: object) -> bool:
    """Whether ``x`` is an array for which array_api_compat has a namespace."""
    kind: Any = type(x)  # any type is hashable
    return _is_array_type(kind)


@lru_cache(maxsize=256)
def _is_array_type(kind: Any) -> bool:
    if issubclass(kind, np.ndarray | np.generic):
        return not issubclass(kind, np.ma.MaskedArray | np.matrix)
    bases = {(base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__}
    return hasattr(kind, "__array_namespace__") or not bases.isdisjoint(_WITHOUT_NAMESPACE)


def namespace(leaves: Sequence[AnyArray]) -> Namespace:
    """Return the namespace of all leaves; it is looked up once for each distinct type.

    Raises
    ------
    TypeError
        If the leaves belong to different namespaces.
    """
    some = _one_of_each_type(leaves)
    if len(some) == 1 and type(some[0]) is np.ndarray:
        return np  # NumPy follows the standard itself, and is faster than array_api_compat's wrapper
    found = compat.array_namespace(*some)
    return mlx_namespace(found) if any(map(is_mlx_array, some)) else found


def _one_of_each_type(leaves: Sequence[AnyArray]) -> Sequence[AnyArray]:
    kinds = set(map(type, leaves))
    return leaves[:1] if len(kinds) == 1 else list({type(x): x for x in leaves}.values())


def is_numpy(xp: Namespace) -> bool:
    """Whether a namespace is NumPy, or array_api_compat's wrapper of it."""
    return xp is np or compat.is_numpy_namespace(xp)


def is_torch(xp: Namespace) -> bool:
    """Whether a namespace is PyTorch's."""
    return compat.is_torch_namespace(xp)


def is_dask(xp: Namespace) -> bool:
    """Whether a namespace is Dask's."""
    return compat.is_dask_namespace(xp)


def is_mlx(xp: Namespace) -> bool:
    """Whether a namespace is the core's of MLX."""
    return isinstance(xp, MlxNamespace)


def adds_pairwise(xp: Namespace) -> bool:
    """Whether a namespace's ``sum`` is known to add in a tree, with a small rounding error at any size."""
    return is_numpy(xp) or is_dask(xp) or compat.is_jax_namespace(xp) or is_mlx(xp)


def constant(xp: Namespace, x: AnyArray) -> AnyArray:
    """Return ``x``; in MLX, as a constant: there, the derivative of a quotient by a tiny number would be 0/0."""
    return xp.stop_gradient(x) if is_mlx(xp) else x


def peak(xp: Namespace, values: AnyArray, axes: Axes | None = None) -> AnyArray:
    """Return the largest of numbers >= 0, over ``axes``, which are kept, or over all axes for None."""
    return xp.max(values, axis=axes, keepdims=axes is not None)


def is_lazy(x: AnyArray) -> bool:
    """Whether ``x`` is traced or delayed: its values cannot be read, or only by running the graph before it."""
    if isinstance(x, np.ndarray | np.generic):
        return False
    return is_mlx_array(x) or compat.is_lazy_array(x)  # the second would compute the values of MLX's arrays


def is_host(x: AnyArray) -> bool:
    """Whether Python may branch on the values of ``x``: they are computed, and in the host's memory."""
    if isinstance(x, np.ndarray | np.generic):
        return True
    if is_lazy(x) or compat.is_cupy_array(x):
        return False
    return not compat.is_torch_array(x) or bool(x.device.type == "cpu")


def is_writable(x: AnyArray) -> bool:
    """Whether ``x`` can be written in place."""
    return bool(x.flags.writeable) if isinstance(x, np.ndarray) else compat.is_writeable_array(x)


def assign(x: AnyArray, value: AnyArray) -> None:
    """Write a value of the same shape and dtype to the whole of ``x``."""
    if compat.is_dask_array(x):  # its own assignment is for parts of an array: it makes more tasks, and takes longer
        namespace([x]).positive(value, dtype=x.dtype, out=x)
    else:
        x[...] = value


def are_writable(leaves: Sequence[AnyArray], kinds: set[Any]) -> bool:
    """Whether all arrays, which have these types, can be written in place. Except for NumPy's, the type says it."""
    if kinds == NUMPYS:
        return all(map(_is_writeable, leaves))
    of_numpy = any(issubclass(kind, np.ndarray) for kind in kinds)
    return all(map(is_writable, leaves if of_numpy or len(kinds) > 1 else leaves[:1]))


def is_recorded(x: AnyArray) -> bool:
    """Whether PyTorch records operations on ``x`` for derivatives."""
    if not getattr(x, "requires_grad", False) or not compat.is_torch_array(x):
        return False
    return bool(compat.array_namespace(x).is_grad_enabled())


def is_frozen(x: AnyArray) -> bool:
    """Whether ``x`` is a tensor of PyTorch's inference mode, which must not be written outside of it."""
    if not compat.is_torch_array(x) or not x.is_inference():
        return False
    return not compat.array_namespace(x).is_inference_mode_enabled()


def is_whole(x: AnyArray) -> bool:
    """Whether ``x`` must not be cut into chunks: it is lazy or recorded, so each chunk would add nodes to a graph."""
    return is_lazy(x) or is_recorded(x)


def as_array(x: AnyArray) -> AnyArray:
    """Return ``x``, or a 0-d array if it is one of NumPy's scalars, which NumPy returns instead of 0-d arrays."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def numel(x: AnyArray) -> int:
    """Return the number of elements, or 0 if it is not known yet; in torch, ``x.size`` is a method."""
    return compat.size(x) or 0


def may_lack_lengths(leaves: Sequence[AnyArray]) -> bool:
    """Whether lengths of axes may be NaN: those of Dask's arrays are if they depend on values, as in ``x[x > 0]``."""
    return any(map(compat.is_dask_array, _one_of_each_type(leaves)))


def has_device(x: AnyArray) -> bool:
    """Whether an array has a device that `device` can return, or needs none."""
    known = compat.is_dask_array, compat.is_jax_array, compat.is_pydata_sparse_array
    return hasattr(x, "device") or is_mlx_array(x) or any(knows(x) for knows in known)


def device(x: AnyArray) -> object:
    """Return the device of ``x``, or None for traced and delayed arrays, whose device is not known."""
    if isinstance(x, np.ndarray | np.generic):
        return "cpu"
    return None if is_lazy(x) else compat.device(x)


def stack_numbers(xp: Namespace, numbers: Sequence[AnyArray]) -> AnyArray:
    """Return 0-d arrays as one of shape (n,). In pydata/sparse, 0-d results are fill values and are made dense."""
    if compat.is_pydata_sparse_namespace(xp):
        return xp.asarray(np.stack([x.todense() for x in numbers]))
    return xp.stack(numbers)


def to_device(x: AnyArray, target: object) -> AnyArray:
    """Return ``x`` on device ``target``; the same array if it is there already, or if ``target`` is None."""
    return x if target is None or device(x) in (None, target) else compat.to_device(x, target)


def wide_dtype(xp: Namespace, x: AnyArray) -> AnyArray:
    """Return the accumulation dtype on ``x``'s device: float64, or float32 if the device has no float64."""
    if is_numpy(xp) or compat.is_cupy_namespace(xp):
        return xp.float64  # all of their devices have it
    if is_mlx(xp):  # a GPU of MLX has none
        return xp.float64 if is_double(x.dtype) else xp.float32
    where = device(x)
    # Not cached for JAX, which can switch float64 on and off, nor for devices without a hash, as CuPy's.
    keep = isinstance(where, Hashable) and not compat.is_jax_namespace(xp)
    has = _has_float64 if keep else _has_float64.__wrapped__
    return xp.float64 if has(xp, where) else xp.float32


@lru_cache(maxsize=64)
def _has_float64(xp: Namespace, where: object) -> bool:
    try:
        return "float64" in xp.__array_namespace_info__().dtypes(device=where, kind="real floating")
    except (AttributeError, RuntimeError):  # a namespace before the 2023.12 standard: make a float64 array below
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(xp.zeros((), dtype=xp.float64, device=where).dtype == xp.float64)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False
