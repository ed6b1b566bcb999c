"""Adaptive gradient clipping: each unit of a leaf by the norm of the parameters that it belongs to."""

from functools import partial
from typing import Any

from gradclip._adaptive import UnitRule, clip_units, clip_units_, matching
from gradclip._types import Array, Scalar, Tree
from gradclip.backends.cupy._tree import CupyLeaves, flatten


def adaptive_grad_clip(
    grads: Tree,
    params: Any,
    clipping: Scalar = 0.01,
    *,
    eps: Scalar = 1e-3,
    axis: int | tuple[int, ...] | None = None,
) -> Tree:
    r"""Return gradients whose norm, unit by unit, is at most ``clipping`` times that of the parameters (AGC).

    .. math:: G_i \leftarrow G_i \cdot \min\Big(1, \lambda\,\frac{\max(\|W_i\|, \epsilon)}{\|G_i\|}\Big)

    Norms along axes are CuPy's reductions, several launches a leaf.

    Parameters
    ----------
    grads : array, parameter or container of these
        As for `clip_by_global_norm_`. Not written to.
    params : array, parameter or container of these
        The parameters, of the structure and the shapes of ``grads``; of objects with ``.data``, that.
    clipping : float or 0-d array
        λ, at least 0: the largest ratio of norms that is let through. inf for no clipping.
    eps : float or 0-d array
        ε, at least 0: the least norm that a unit of parameters is taken to have.
    axis : int, tuple of int or None
        The axes that make up a unit; None as for `gradclip.adaptive_grad_clip`. Chainer's layouts need those from 1 on.

    Returns
    -------
    container of arrays
        Of the structure, shapes, dtypes and devices of ``grads``; units that need no clipping bit for bit.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `clip_by_global_norm_`; also if the containers do not match.

    References
    ----------
    .. [1] A. Brock, S. De, S. L. Smith, K. Simonyan, "High-Performance Large-Scale Image Recognition Without
       Normalization", ICML 2021, arXiv:2102.06171, equation 3.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> adaptive_grad_clip(cupy.array([3.0, 4.0]), cupy.array([0.0, 5.0]), 0.5)  # doctest: +SKIP
    array([1.5, 2. ])
    """
    rule, leaves = UnitRule(clipping, eps, axis), flatten(grads)
    return clip_units(leaves, _weights(leaves, grads, params), rule)  # type: ignore[no-any-return]  # grads' own type


def adaptive_grad_clip_(
    grads: Any,
    params: Any,
    clipping: Scalar = 0.01,
    *,
    eps: Scalar = 1e-3,
    axis: int | tuple[int, ...] | None = None,
) -> None:
    """Clip gradients in place by the norms of the parameters that they belong to, unit by unit (AGC).

    Parameters
    ----------
    grads : array, parameter or container of these
        As for `clip_by_global_norm_`.
    params, clipping, eps, axis
        As for `adaptive_grad_clip`.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `adaptive_grad_clip`. Nothing was written then.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> adaptive_grad_clip_(cupy.array([3.0, 4.0]), cupy.array([1.0, 0.0]), 0.5)  # doctest: +SKIP
    """
    rule, leaves = UnitRule(clipping, eps, axis), flatten(grads)
    clip_units_(leaves, _weights(leaves, grads, params), rule)


def _weights(leaves: CupyLeaves, grads: Any, params: Any) -> list[Array]:
    """Return the parameter for each distinct gradient."""
    return matching(leaves, grads, params, partial(flatten, attribute="data"))
