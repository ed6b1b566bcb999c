"""The self-check of ``gradclip doctor``: each adapter against the golden vectors of ``gradclip.conformance``.

A vector is a call with its exact result. The whole contract takes minutes and needs the extra ``conformance``; this
takes seconds and needs nothing.
"""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from gradclip._dtypes import COMPONENTS
from gradclip.conformance.golden import argument_of, values_of, vectors

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradclip.conformance.golden import Vector

__all__ = ["CHECKS", "AbsentError", "check"]

Values: TypeAlias = Any
"""A NumPy array of float64 or complex128."""

FORMATS: Final = {"float16": (11, -14), "bfloat16": (8, -126), "float32": (24, -126), "float64": (53, -1022)}
"""Binary digits of a number and the exponent of the smallest normal one, by dtype."""


class AbsentError(Exception):
    """What would be checked is not there, which is no fault."""


@dataclass(frozen=True)
class Framework:
    """How vectors become arrays of a framework, and results become NumPy arrays.

    Parameters
    ----------
    functions
        Has the functions that are checked as attributes.
    make, read
        From values to an array of a dtype, and from an array to values.
    dtypes
        Those that are checked.
    differs
        Matches the names of vectors whose result is known to differ, which the documentation says.
    why
        Why it differs.
    """

    functions: Any
    make: Callable[[Values, str], Any]
    read: Callable[[Any], Values]
    dtypes: tuple[str, ...]
    differs: str = "(?!)"
    why: str = ""


def check(name: str) -> str:
    """Return how many exact results an adapter meets; "numpy" is the core.

    Raises
    ------
    ImportError
        If the adapter's framework is not installed.
    AbsentError
        If there is no GPU for it.
    AssertionError
        If a result is wrong. The message names the first vector that is, and how many are.
    """
    framework = CHECKS[name]()
    offered = [v for v in vectors() if v["dtype"] in framework.dtypes and _offers(framework.functions, v)]
    chosen = [v for v in offered if not re.match(framework.differs, v["name"])]
    wrong = [vector for vector in chosen if not _right(framework, vector)]
    if wrong:
        first = f"{wrong[0]['function']}, {wrong[0]['name']}"
        raise AssertionError(f"{len(wrong)} of {len(chosen)} exact results are not met; the first: {first}")
    left = len(offered) - len(chosen)
    return f"{len(chosen)} exact results are met" + (f"; {left} are not checked: {framework.why}" if left else "")


def _offers(functions: Any, vector: Vector) -> bool:
    function = getattr(functions, vector["function"], None)
    return function is not None and vector["arguments"].keys() <= inspect.signature(function).parameters.keys()


def _right(framework: Framework, vector: Vector) -> bool:
    """Return whether a function gives a vector's norm and result, within the errors that the vector allows."""
    dtype = vector["dtype"]
    given = [[framework.make(values_of(x), dtype) for x in vector[k]] for k in ("leaves", "params") if k in vector]
    options = {name: argument_of(value) for name, value in vector["arguments"].items()}
    got = getattr(framework.functions, vector["function"])(*given, **options)
    norm: Any = None
    if vector["function"] == "clip_by_global_norm":
        got, norm = got
    elif vector["function"] == "global_norm":
        got, norm = [], got
    if norm is not None and not _norm_is_right(float(framework.read(norm)), vector):
        return False
    pairs = zip(got, vector.get("result", []), strict=True)
    return all(_leaf_is_right(framework.read(x), values_of(right), vector) for x, right in pairs)


def _norm_is_right(got: float, vector: Vector) -> bool:
    right = float.fromhex(vector["norm"])
    if not math.isfinite(right):
        return got == right or (math.isnan(got) and math.isnan(right))
    unit = float(_ulp(np.array(right), vector["norm_dtype"]))
    return abs(got - right) <= max(right * float.fromhex(vector["norm_error"]), unit / 2)


def _leaf_is_right(got: Values, right: Values, vector: Vector) -> bool:
    if got.shape != right.shape:
        return False
    ours, exact = (np.ascontiguousarray(x).view(np.float64) for x in (np.atleast_1d(got), np.atleast_1d(right)))
    same = (ours == exact) & (np.signbit(ours) == np.signbit(exact)) | np.isnan(ours) & np.isnan(exact)
    if vector["ulps"] == 0:
        return bool(same.all())
    with np.errstate(invalid="ignore"):
        near = np.abs(ours - exact) <= vector["ulps"] * _ulp(exact, _part(vector["dtype"]))
    return bool((same | near).all())


def _part(dtype: str) -> str:
    """Return the dtype of the real parts."""
    return COMPONENTS.get(dtype, dtype)


def _ulp(values: Values, dtype: str) -> Values:
    """Return the distance of neighbouring numbers of a dtype at these values."""
    digits, least = FORMATS[dtype]
    exponents = np.frexp(np.where(np.isfinite(values), values, 1.0))[1] - 1
    return np.ldexp(1.0, np.maximum(np.where(values == 0, least, exponents), least) - (digits - 1))


def _widened(values: Values) -> Values:
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)


def _numpy() -> Framework:
    import gradclip

    dtypes = ("float16", "float32", "float64", "complex64", "complex128")
    return Framework(gradclip, lambda x, dtype: x.astype(dtype), lambda x: _widened(np.asarray(x)), dtypes)


def _torch(device: str = "cpu") -> Framework:
    import torch

    from gradclip.backends import torch as adapter

    def make(values: Values, dtype: str) -> Any:
        return torch.from_numpy(np.array(values)).to(device, getattr(torch, dtype), copy=True)

    def read(x: Any) -> Values:
        return x.detach().to("cpu", torch.complex128 if x.is_complex() else torch.float64).numpy()

    if device == "cuda" and not torch.cuda.is_available():
        raise AbsentError("no GPU found")
    why = "PyTorch's layers have their units along the first axis"
    return Framework(adapter, make, read, (*FORMATS, "complex64", "complex128"), r"units of [234] axes", why)


def _jax() -> Framework:
    from gradclip.backends import jax as adapter

    return _on_jax(adapter)


def _optax() -> Framework:
    from gradclip.backends import optax as adapter

    def clip_by_global_norm(grads: Any, max_norm: float) -> tuple[Any, Any]:
        transform: Any = adapter.clip_by_global_norm(max_norm)  # optax's types do not tell what a state is
        clipped, state = transform.update(grads, transform.init(grads))
        return clipped, state.norm

    return _on_jax(SimpleNamespace(clip_by_global_norm=clip_by_global_norm))


def _on_jax(functions: Any) -> Framework:
    import jax

    def make(values: Values, dtype: str) -> Any:
        return jax.numpy.asarray(values.astype(dtype))

    why = "XLA flushes subnormal numbers to zero"
    return Framework(functions, make, lambda x: _widened(np.asarray(x)), ("float32",), "subnormal", why)


def _cupy() -> Framework:
    from gradclip.backends import cupy as adapter
    from gradclip.backends.cupy._runtime import runtime

    try:
        cupy = runtime().cupy
    except RuntimeError as error:
        raise AbsentError("no GPU found") from error
    dtypes = ("float16", "float32", "float64", "complex64", "complex128")
    return Framework(
        adapter, lambda x, dtype: cupy.asarray(x.astype(dtype)), lambda x: _widened(cupy.asnumpy(x)), dtypes
    )


CHECKS: Final[dict[str, Callable[[], Framework]]] = {
    "numpy": _numpy,
    "torch": _torch,
    "torch, GPU": lambda: _torch("cuda"),
    "jax": _jax,
    "optax": _optax,
    "cupy": _cupy,
}
"""For each adapter what is checked. JAX compiles each case, so that one dtype is enough of them."""
