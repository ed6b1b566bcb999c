"""The functions that policies call on numbers: Python's for floats, else those of an array's namespace.

A policy is written once. For Python floats one update takes about 3 µs, so a host's numbers are not made arrays.
"""

import math
from typing import Any

import numpy as np

from gradclip import _namespace as ns
from gradclip._types import AnyArray, AnyScalar, Namespace


class Floats:
    """The functions of a namespace for Python floats, of which np.float64 is one."""

    isfinite = staticmethod(math.isfinite)
    sqrt = staticmethod(math.sqrt)

    @staticmethod
    def exp(x: float) -> float:
        """Return e to the power of ``x``; inf if that is out of range."""
        try:
            return math.exp(x)
        except OverflowError:
            return math.inf

    @staticmethod
    def where(condition: bool, x: float, y: float) -> float:
        """Return ``x`` if the condition holds, else ``y``."""
        return x if condition else y

    @staticmethod
    def full_like(x: float, value: float) -> float:  # noqa: ARG004  # a namespace takes shape and dtype from it
        """Return ``value`` as a float."""
        return float(value)


_namespaces: dict[Any, Namespace] = {np.ndarray: np}
"""The namespace of each type of array that was seen, so that it is looked up in 0.1 µs."""


def namespace(x: AnyScalar) -> Namespace:
    """Return the functions for a float or an array."""
    if isinstance(x, float):
        return Floats
    kind: Any = type(x)  # any type is hashable
    found = _namespaces.get(kind)
    if found is None:
        found = np if isinstance(x, np.generic) else ns.namespace([x])
        _namespaces[kind] = found
    return found


def filled(like: AnyScalar, value: float) -> AnyScalar:
    """Return a number for a state: a float, or an array of the shape, dtype and device of ``like``."""
    return namespace(like).full_like(like, value)


def converted(value: AnyArray, like: AnyArray) -> AnyArray:
    """Return a number, an array of any kind, as an array of the namespace, dtype and device of ``like``."""
    xp = namespace(like)
    if xp is np:
        return np.asarray(value, dtype=like.dtype)
    return ns.to_device(xp.astype(value, like.dtype), ns.device(like))


def enters(norm: AnyScalar) -> AnyArray:
    """Whether a norm may enter a state: NaN, inf and 0 may not.

    NaN and inf would stay in it for ever. A norm of 0 says that there was no gradient (an expert without tokens); a
    threshold that is computed from it could be 0 and never change again.
    """
    return (norm > 0) & (norm < math.inf)


def history(like: AnyScalar, window: int) -> AnyArray:
    """Return an empty history of norms, of shape ``(window,)``: inf stands for a norm that is not there yet."""
    if isinstance(like, float):
        return np.full(window, math.inf)
    return namespace(like).full((window,), math.inf, dtype=like.dtype, device=ns.device(like))


def appended(norms: AnyArray, norm: AnyScalar) -> AnyArray:
    """Return a history without its oldest norm and with another at its end; the same history if that may not enter."""
    xp = namespace(norms)
    last = xp.full_like(norms[-1:], norm) if isinstance(norm, float) else xp.reshape(norm, (1,))
    return xp.where(enters(last), xp.concat([norms[1:], last]), norms)
