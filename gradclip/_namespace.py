"""What an array is: its namespace, its dtype's kind, its device, and whether its values may be read at once.

The only module that imports array_api_compat. No framework is imported here: array_api_compat recognises the arrays of
frameworks that the user has imported already.
"""

import warnings
from collections.abc import Hashable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import array_api_compat as compat
import numpy as np

from gradclip._types import Array, Axes, Namespace

_LARGEST = {
    "float4_e2m1fn": 6.0,
    "float6_e2m3fn": 7.5,
    "float6_e3m2fn": 28.0,
    "float8_e3m4": 15.5,
    "float8_e4m3": 240.0,
    "float8_e4m3b11fnuz": 30.0,
    "float8_e4m3fn": 448.0,
    "float8_e4m3fnuz": 240.0,
    "float8_e5m2": 57344.0,
    "float8_e5m2fnuz": 57344.0,
    "float16": 65504.0,
    "bfloat16": float.fromhex("0x1.fep127"),
    "float32": float.fromhex("0x1.fffffep127"),
    "float64": float.fromhex("0x1.fffffffffffffp1023"),
}
"""The real dtypes that gradients may have, each with its largest finite value.

Not among them: float8_e8m0fnu, which has no sign and no zero; two numbers packed in a byte; and more than float64.
"""

_is_writeable = attrgetter("flags.writeable")
_COMPLEX = {"complex32", "complex64", "complex128"}
_DOUBLE = {"float64", "complex128"}


# typed=True keeps dtypes of different namespaces from being compared with each other, which some warn about.
@lru_cache(maxsize=256, typed=True)
def dtype_name(dtype: object) -> str:
    """Return the bare name of a dtype or scalar type, such as ``"float32"``, where torch prints ``torch.float32``."""
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    return str(name).rsplit(".", 1)[-1]


@lru_cache(maxsize=256, typed=True)
def is_real(dtype: object) -> bool:
    """Whether a dtype is real floating-point, counting bfloat16 and narrower ones, which the standard does not know."""
    return dtype_name(dtype) in _LARGEST


@lru_cache(maxsize=256, typed=True)
def is_complex(dtype: object) -> bool:
    """Whether a dtype is complex."""
    return dtype_name(dtype) in _COMPLEX


@lru_cache(maxsize=256, typed=True)
def is_floating(dtype: object) -> bool:
    """Whether a dtype is real floating-point or complex: one that gradients may have."""
    return is_real(dtype) or is_complex(dtype)


@lru_cache(maxsize=256, typed=True)
def is_double(dtype: object) -> bool:
    """Whether a dtype has double precision: nothing wider can accumulate it."""
    return dtype_name(dtype) in _DOUBLE


@lru_cache(maxsize=256, typed=True)
def is_narrow(dtype: object) -> bool:
    """Whether a real dtype has less than 16 bits: made to store numbers, so that frameworks hardly calculate in it."""
    return dtype_name(dtype).startswith(("float8_", "float6_", "float4_"))


def is_native(dtype: object) -> bool:
    """Whether a dtype has the machine's byte order, as all have but some of NumPy's."""
    return getattr(dtype, "isnative", True) is True


def largest(dtype: object) -> float:
    """Return the largest finite value of a real dtype."""
    return _LARGEST.get(dtype_name(dtype), float("inf"))


def has_infinity(dtype: object) -> bool:
    """Whether a real dtype has a value for infinity: not those whose names say that they are finite (fn)."""
    return "fn" not in dtype_name(dtype)


@lru_cache(maxsize=256)
def _is_array_type(kind: Any) -> bool:
    if issubclass(kind, np.ndarray | np.generic):
        return not issubclass(kind, np.ma.MaskedArray | np.matrix)
    if hasattr(kind, "__array_namespace__"):
        return True
    return any(base.__module__.partition(".")[0] in {"torch", "dask", "cupy"} for base in kind.__mro__)


def is_array(x: object) -> bool:
    """Whether ``x`` is an array that array_api_compat has, or can make, a namespace for."""
    kind: Any = type(x)  # any type is hashable
    return _is_array_type(kind) and (kind.__module__ == "numpy" or compat.is_array_api_obj(x))


def namespace(leaves: Sequence[Array]) -> Namespace:
    """Return the namespace that all leaves share, looked up once for each distinct type.

    Raises
    ------
    TypeError
        If the leaves belong to different namespaces.
    """
    some = _one_of_each_type(leaves)
    if len(some) == 1 and type(some[0]) is np.ndarray:
        return np  # which follows the standard by itself, and is faster than its wrapper
    return compat.array_namespace(*some)


def _one_of_each_type(leaves: Sequence[Array]) -> Sequence[Array]:
    kinds = set(map(type, leaves))
    return leaves[:1] if len(kinds) == 1 else list({type(x): x for x in leaves}.values())


def is_numpy(xp: Namespace) -> bool:
    """Whether a namespace is NumPy's."""
    return xp is np or compat.is_numpy_namespace(xp)


def is_torch(xp: Namespace) -> bool:
    """Whether a namespace is PyTorch's."""
    return compat.is_torch_namespace(xp)


def adds_pairwise(xp: Namespace) -> bool:
    """Whether a namespace's ``sum`` is known to add in a tree, so that its rounding error stays small at any size."""
    return is_numpy(xp) or compat.is_dask_namespace(xp) or compat.is_jax_namespace(xp)  # XLA rewrites sums as trees


def peak(xp: Namespace, values: Array, axes: Axes | None = None) -> Array:
    """Return the largest of numbers that are not negative, over ``axes``, which stay, or over all for None.

    Of no numbers it is 0 in Dask, where nobody knows how many there are before they are computed.
    """
    keep = axes is not None
    if compat.is_dask_namespace(xp):  # its own maximum fails where some chunks are empty
        return xp.reduction(values, _peak_of_chunk, _peak_of_chunk, axis=axes, keepdims=keep, dtype=values.dtype)
    return xp.max(values, axis=axes, keepdims=keep)


def _peak_of_chunk(x: Array, axis: object, keepdims: bool) -> Array:
    return (x.max if x.size else x.sum)(axis=axis, keepdims=keepdims)  # a sum of nothing is 0


def is_lazy(x: Array) -> bool:
    """Whether ``x`` is traced or delayed: its values cannot be read, or only by running everything before it."""
    return not isinstance(x, np.ndarray | np.generic) and compat.is_lazy_array(x)


def is_host(x: Array) -> bool:
    """Whether Python may branch on the values of ``x``: it is there already, and in the host's memory."""
    if isinstance(x, np.ndarray | np.generic):
        return True
    if compat.is_lazy_array(x) or compat.is_cupy_array(x):
        return False
    return not compat.is_torch_array(x) or bool(x.device.type == "cpu")


def is_writable(x: Array) -> bool:
    """Whether ``x`` can be written in place."""
    return bool(x.flags.writeable) if isinstance(x, np.ndarray) else compat.is_writeable_array(x)


def are_writable(leaves: Sequence[Array]) -> bool:
    """Whether all arrays can be written in place; but for NumPy's, their types tell."""
    some = _one_of_each_type(leaves)
    if len(some) == 1 and type(some[0]) is np.ndarray:
        return all(map(_is_writeable, leaves))
    return all(map(is_writable, leaves if any(isinstance(x, np.ndarray) for x in some) else some))


def is_recorded(x: Array) -> bool:
    """Whether what is done with ``x`` is recorded for derivatives, as torch does unless that is switched off."""
    if not getattr(x, "requires_grad", False) or not compat.is_torch_array(x):
        return False
    return bool(compat.array_namespace(x).is_grad_enabled())


def is_whole(x: Array) -> bool:
    """Whether ``x`` has to be taken as a whole: lazy or recorded, where each part costs a node in a graph."""
    return is_lazy(x) or is_recorded(x)


def as_array(x: Array) -> Array:
    """Return ``x``, or a 0-d array for one of NumPy's scalars, which its functions return in place of 0-d arrays."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def size(x: Array) -> int:
    """Return the number of elements, 0 where it is not known yet (in torch, ``x.size`` is a method)."""
    return compat.size(x) or 0


def has_lengths(x: Array) -> bool:
    """Whether the length of each axis is known. Dask counts as NaN what depends on values, as in ``x[x > 0]``."""
    return isinstance(x, np.ndarray) or all(n == n for n in x.shape)


def has_device(x: Array) -> bool:
    """Whether the device of an array can be asked for, by itself or by array_api_compat."""
    return hasattr(x, "device") or any(
        knows(x) for knows in (compat.is_dask_array, compat.is_jax_array, compat.is_pydata_sparse_array)
    )


def device(x: Array) -> object:
    """Return the device of ``x``, or None where it has none that can be named (traced or delayed arrays)."""
    if isinstance(x, np.ndarray | np.generic):
        return "cpu"
    return None if is_lazy(x) else compat.device(x)


def stack_numbers(xp: Namespace, numbers: Sequence[Array]) -> Array:
    """Return 0-d arrays as one of shape (n,); pydata/sparse, where a 0-d result is a fill value, has to be helped."""
    if compat.is_pydata_sparse_namespace(xp):
        return xp.asarray(np.stack([x.todense() for x in numbers]))
    return xp.stack(numbers)


def to_device(x: Array, target: object) -> Array:
    """Return ``x`` on ``target``; the same array if it is there, or if ``target`` is None."""
    return x if target is None or device(x) in (None, target) else compat.to_device(x, target)


def wide_dtype(xp: Namespace, x: Array) -> Array:
    """Return the dtype that sums on ``x``'s device are kept in: float64, or float32 where there is no float64."""
    if is_numpy(xp) or compat.is_cupy_namespace(xp):
        return xp.float64  # which all of their devices have
    where = device(x)
    # JAX can switch float64 on and off at any time: the answer is not kept. Nor for devices without a hash, as CuPy's.
    keep = isinstance(where, Hashable) and not compat.is_jax_namespace(xp)
    has = _has_float64 if keep else _has_float64.__wrapped__
    return xp.float64 if has(xp, where) else xp.float32


@lru_cache(maxsize=64)
def _has_float64(xp: Namespace, where: object) -> bool:
    try:
        return "float64" in xp.__array_namespace_info__().dtypes(device=where, kind="real floating")
    except (AttributeError, RuntimeError):  # a namespace before the 2023.12 standard: try it
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(xp.zeros((), dtype=xp.float64, device=where).dtype == xp.float64)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False


def norm_dtype(xp: Namespace, x: Array) -> Array:
    """Return the dtype of the norm of ``x``: float64 for float64 and complex128, float32 for all others."""
    return xp.float64 if is_double(x.dtype) else xp.float32
