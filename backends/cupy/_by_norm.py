"""Clipping each leaf by its own norm, or by its own root mean square."""

from typing import Any

from gradclip import _checks
from gradclip._by_norm import clip_each, clip_each_, numels_of
from gradclip._types import Scalar, Tree
from gradclip.backends.cupy._tree import flatten


def clip_by_norm(grads: Tree, max_norm: Scalar | None, *, ord: float = 2.0) -> Tree:
    """Return gradients of which each leaf has a norm of at most ``max_norm``.

    Parameters
    ----------
    grads : array, parameter or container of these
        As for `clip_by_global_norm_`. Not written to.
    max_norm : float, 0-d array or None
        The largest norm of a leaf that is let through, at least 0; None or inf for no clipping.
    ord : float
        The order of the norm, greater than 0, or ``math.inf``.

    Returns
    -------
    container of arrays
        Of the structure, shapes, dtypes and devices of ``grads``, always new.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `clip_by_global_norm_`.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> clip_by_norm([cupy.array([3.0, 4.0]), cupy.array([0.1])], 1.0)  # doctest: +SKIP
    [array([0.6, 0.8]), array([0.1])]
    """
    limit, order = _checks.threshold(max_norm, "max_norm"), _checks.order(ord)
    return clip_each(flatten(grads), limit, order)  # type: ignore[no-any-return]  # grads' own type


def clip_by_norm_(grads: Any, max_norm: Scalar | None, *, ord: float = 2.0) -> None:
    """Clip each leaf by its own norm in place.

    Parameters
    ----------
    grads : array, parameter or container of these
        As for `clip_by_global_norm_`.
    max_norm, ord
        As for `clip_by_norm`.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `clip_by_global_norm_`. Nothing was written then.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> clip_by_norm_([cupy.array([3.0, 4.0])], 1.0)  # doctest: +SKIP
    """
    limit, order = _checks.threshold(max_norm, "max_norm"), _checks.order(ord)
    clip_each_(flatten(grads), limit, order, "clip_by_norm")


def clip_by_rms(grads: Tree, max_rms: Scalar | None) -> Tree:
    """Return gradients of which each leaf has a root mean square of at most ``max_rms``.

    Parameters
    ----------
    grads : array, parameter or container of these
        As for `clip_by_global_norm_`. Not written to.
    max_rms : float, 0-d array or None
        The largest root mean square (norm / sqrt(size)) of a leaf, at least 0; None or inf for no clipping.

    Returns
    -------
    container of arrays
        Of the structure, shapes, dtypes and devices of ``grads``, always new.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `clip_by_global_norm_`.

    References
    ----------
    .. [1] N. Shazeer, M. Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018,
       arXiv:1804.04235, section 6: the update U / max(1, RMS(U) / d).

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> clip_by_rms([cupy.array([2.0, -2.0, 2.0, -2.0])], 1.0)  # doctest: +SKIP
    [array([ 1., -1.,  1., -1.])]
    """
    limit, leaves = _checks.threshold(max_rms, "max_rms"), flatten(grads)
    return clip_each(leaves, limit, 2.0, numels_of(leaves))  # type: ignore[no-any-return]  # grads' own type


def clip_by_rms_(grads: Any, max_rms: Scalar | None) -> None:
    """Clip each leaf by its own root mean square in place.

    Parameters
    ----------
    grads : array, parameter or container of these
        As for `clip_by_global_norm_`.
    max_rms
        As for `clip_by_rms`.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `clip_by_global_norm_`. Nothing was written then.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> clip_by_rms_(cupy.array([2.0, -2.0]), 1.0)  # doctest: +SKIP
    """
    limit, leaves = _checks.threshold(max_rms, "max_rms"), flatten(grads)
    clip_each_(leaves, limit, 2.0, "clip_by_rms", numels_of(leaves))
