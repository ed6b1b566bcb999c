"""Clipping by value: each element is limited to an interval."""

from typing import Any

import jax
import jax.numpy as jnp

from gradclip import _checks, _dtypes
from gradclip._array_ops import limited
from gradclip._by_value import clamp_leaves
from gradclip._calls import explained
from gradclip._types import AnyScalar, Scalar, Tree
from gradclip.backends.jax._eager import compiled
from gradclip.backends.jax._tree import flatten, scalar, split


@explained(optax="clip(max_delta)", by_name="clip_by_value(grads, min_value=-1.0, max_value=1.0)")
def clip_by_value(grads: Tree, max_value: Scalar, *, min_value: Scalar | None = None, donate: bool = False) -> Tree:
    """Return gradients with each element clipped to ``[-max_value, max_value]``. The host does not wait for the device.

    Parameters
    ----------
    grads : pytree of arrays
        As for `global_norm`, of real dtypes.
    max_value : float or 0-d array
        The upper bound, at least 0 unless ``min_value`` is given; inf: no bound. It is rounded to each leaf's dtype; a
        finite bound beyond the dtype's range becomes its largest finite number.
    min_value : float, 0-d array or None
        The lower bound, -``max_value`` by default.
    donate : bool
        As for `clip_by_global_norm`.

    Returns
    -------
    pytree of arrays
        Of the structure, shapes, dtypes and shardings of ``grads``. NaN stays NaN, ±inf becomes the bounds.

    Raises
    ------
    TypeError
        If a leaf is complex or not a floating-point array, or a bound is not a number.
    ValueError
        If a bound is NaN, ``max_value`` is negative without ``min_value``, or ``min_value`` exceeds it.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends.jax import clip_by_value
    >>> clip_by_value([jnp.array([-3.0, 0.5, jnp.inf])], 1.0)
    [Array([-1. ,  0.5,  1. ], dtype=float32)]
    """
    parts = split(grads)
    low, high = (_finite(bound, parts.arrays) for bound in _checks.bounds(max_value, min_value))
    clipped: Tree = parts.restore(_by_value(parts.arrays, low, high, donate=donate))
    return clipped


def _finite(bound: AnyScalar, arrays: Any) -> AnyScalar:
    """Return a bound; a finite one is limited to the range of the dtype in which bounds are computed."""
    if not isinstance(bound, float) or abs(bound) <= _dtypes.largest(jnp.float32):
        return bound
    double = any(_dtypes.is_double(x.dtype) for x in jax.tree.leaves(arrays))
    return limited(bound, jnp.float64 if double else jnp.float32)


@compiled()
def _by_value(grads: Any, low: AnyScalar, high: AnyScalar) -> Any:
    leaves = flatten(grads)
    return clamp_leaves(leaves, scalar(leaves, low, None), scalar(leaves, high, None))
