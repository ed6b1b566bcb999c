"""Clipping by value: each element into an interval, in one launch a dtype."""

from typing import Any

from gradclip import _checks
from gradclip._by_value import clamp_leaves, clamp_leaves_
from gradclip._calls import explained
from gradclip._types import Scalar, Tree
from gradclip.backends.cupy._tree import flatten


@explained(by_name="clip_by_value(grads, min_value=-1.0, max_value=1.0)")
def clip_by_value(grads: Tree, max_value: Scalar, *, min_value: Scalar | None = None) -> Tree:
    """Return gradients with each element moved into ``[-max_value, max_value]``.

    Parameters
    ----------
    grads : array, parameter or container of these
        As for `clip_by_global_norm_`, of real dtypes. Not written to.
    max_value : float or 0-d array
        The upper bound, at least 0 unless ``min_value`` is given; inf for none. It is rounded to a leaf's dtype; beyond
        that dtype's range it is the largest finite number.
    min_value : float, 0-d array or None
        The lower bound, -``max_value`` by default.

    Returns
    -------
    container of arrays
        Of the structure, shapes, dtypes and devices of ``grads``, always new. NaN stays NaN, ±inf goes to the bounds.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `clip_by_global_norm_`; also if a leaf is complex, a bound is NaN, or ``min_value`` exceeds ``max_value``.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> clip_by_value(cupy.array([-3.0, 0.5, cupy.inf]), 1.0)  # doctest: +SKIP
    array([-1. ,  0.5,  1. ])
    """
    low, high = _checks.bounds(max_value, min_value)
    return clamp_leaves(flatten(grads), low, high)  # type: ignore[no-any-return]  # grads' own type


@explained(by_name="clip_by_value_(grads, min_value=-1.0, max_value=1.0)")
def clip_by_value_(grads: Any, max_value: Scalar, *, min_value: Scalar | None = None) -> None:
    """Move each element of the gradients into ``[-max_value, max_value]`` in place.

    Parameters
    ----------
    grads : array, parameter or container of these
        As for `clip_by_global_norm_`, of real dtypes. Accesses that need no change are not written back.
    max_value, min_value
        As for `clip_by_value`.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `clip_by_value`. Nothing was written then.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> clip_by_value_(cupy.array([-3.0, 0.5]), 1.0)  # doctest: +SKIP
    """
    low, high = _checks.bounds(max_value, min_value)
    clamp_leaves_(flatten(grads), low, high)
