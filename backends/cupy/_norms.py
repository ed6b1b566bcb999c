"""Norms: of all leaves together, of each leaf, and as a partial that merges with others."""

from typing import Any

from gradclip import _checks
from gradclip._norms import norms_of
from gradclip._partial import NormPartial
from gradclip._types import Array, Tree
from gradclip.backends.cupy._tree import flatten


def global_norm(grads: Any, *, ord: float = 2.0) -> Array:
    r"""Return the norm of all leaves laid end to end, by two launches and one read.

    .. math:: \|g\|_p = \Big(\sum_{\text{leaves}} \sum_i |g_i|^p\Big)^{1/p}

    Parameters
    ----------
    grads : array, parameter or container of these
        As for `clip_by_global_norm_`; not written to.
    ord : float
        The order p, greater than 0, or ``math.inf`` for the largest absolute value.

    Returns
    -------
    array
        0-d, on the first leaf's device; float64 if any leaf is float64 or complex128, else float32. Not read back.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `clip_by_global_norm_`.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> global_norm({"w": cupy.array([[3.0], [0.0]]), "b": cupy.array([4.0])})  # doctest: +SKIP
    array(5.)
    """
    order = _checks.order(ord)
    return flatten(grads, weights=True).partial(order).norm()


def leaf_norms(grads: Tree, *, ord: float = 2.0) -> Tree:
    """Return the norm of each leaf, in the container that the leaves came in.

    Parameters
    ----------
    grads : array, parameter or container of these
        As for `clip_by_global_norm_`; not written to.
    ord : float
        The order, greater than 0, or ``math.inf``.

    Returns
    -------
    container of arrays
        0-d norms in place of the leaves, each on its leaf's device. Not read back.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `clip_by_global_norm_`.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> leaf_norms({"w": cupy.array([3.0, 4.0]), "b": None})  # doctest: +SKIP
    {'w': array(5.), 'b': None}
    """
    order = _checks.order(ord)
    return norms_of(flatten(grads, weights=True), order)  # type: ignore[no-any-return]  # grads' own type


def norm_partial(grads: Any, *, ord: float = 2.0) -> NormPartial:
    """Return the norm of these gradients in a form that merges with that of others.

    Parameters
    ----------
    grads : array, parameter or container of these
        As for `clip_by_global_norm_`; not written to.
    ord : float
        The order, greater than 0, or ``math.inf``; partials merge with those of the same order.

    Returns
    -------
    NormPartial
        0-d, on the first leaf's device.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `clip_by_global_norm_`.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> first, second = norm_partial([cupy.array([3.0])]), norm_partial([cupy.array([4.0])])  # doctest: +SKIP
    >>> first.merge(second).norm()  # doctest: +SKIP
    array(5.)
    """
    order = _checks.order(ord)
    return flatten(grads).partial(order)
