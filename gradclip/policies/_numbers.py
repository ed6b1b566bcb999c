"""The functions that policies call on numbers: Python's for floats, else those of an array's namespace.

A policy is written once. On the host's floats one update takes about 2 µs, which is why they are not made NumPy arrays.
"""

import math
from typing import Any

import numpy as np

from gradclip import _namespace as ns
from gradclip._types import AnyArray, AnyScalar, Namespace


class Floats:
    """The functions of a namespace for Python floats, of which np.float64 is one."""

    isfinite = staticmethod(math.isfinite)
    hypot = staticmethod(math.hypot)
    sqrt = staticmethod(math.sqrt)
    minimum = staticmethod(min)
    maximum = staticmethod(max)

    @staticmethod
    def where(condition: bool, x: AnyScalar, y: AnyScalar) -> AnyScalar:
        """Return ``x`` if the condition holds, else ``y``."""
        return x if condition else y

    @staticmethod
    def full_like(x: float, value: float) -> float:  # noqa: ARG004  # a namespace takes the dtype from it
        """Return a float."""
        return value


_namespaces: dict[Any, Namespace] = {np.ndarray: np}
"""The namespace of each type of array that was seen: a look-up in 0.1 µs."""


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
    return float(value) if isinstance(like, float) else namespace(like).full_like(like, value)


def history(like: AnyScalar, window: int) -> AnyArray:
    """Return an empty history of norms, of shape ``(window,)``: inf stands for a norm that is not there yet."""
    if isinstance(like, float):
        return np.full(window, math.inf)
    return namespace(like).full((window,), math.inf, dtype=like.dtype, device=ns.device(like))


def appended(xp: Namespace, norms: AnyArray, norm: AnyScalar) -> AnyArray:
    """Return a history without its oldest norm and with another at its end; the same if this is NaN or inf."""
    last = xp.full_like(norms[-1:], norm) if isinstance(norm, float) else xp.reshape(norm, (1,))
    return xp.where(xp.isfinite(last), xp.concat([norms[1:], last]), norms)
