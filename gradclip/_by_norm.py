"""Clipping each leaf by its own norm, or by its own root mean square."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from gradclip import _checks
from gradclip import _namespace as ns
from gradclip._coefficient import Coefficient, coefficient
from gradclip._partial import NormPartial
from gradclip._tree import Leaves, flatten
from gradclip._types import Scalar, Tree

Limit: TypeAlias = Callable[[Leaves, NormPartial], Scalar | None]
"""Gives the thresholds for a batch of norms, one for each leaf."""


def clip_by_norm(grads: Tree, max_norm: Scalar | None, *, ord: float = 2.0) -> Tree:
    """Return gradients of which each leaf has a norm of at most ``max_norm``.

    The direction of the whole changes where leaves are clipped differently; see `clip_by_global_norm` for one
    coefficient for all.

    Parameters
    ----------
    grads : array or container of arrays
        As for `clip_by_global_norm`. Not written to.
    max_norm : float, 0-d array or None
        The largest norm of a leaf that is let through, at least 0; None or inf for no clipping.
    ord : float
        The order of the norm, greater than 0, or ``math.inf``.

    Returns
    -------
    container of arrays
        Of the structure, shapes, dtypes and devices of ``grads``; leaves that need no clipping bit for bit.

    Raises
    ------
    TypeError
        If a leaf is not a floating-point array, or an argument not a number.
    ValueError
        If ``max_norm`` is negative or NaN, or ``ord`` not greater than 0.

    Examples
    --------
    >>> import numpy as np, gradclip
    >>> gradclip.clip_by_norm([np.array([3.0, 4.0]), np.array([0.1])], 1.0)
    [array([0.6, 0.8]), array([0.1])]
    """
    limit, order = _checks.threshold(max_norm, "max_norm"), _checks.order(ord)
    return clip_each(flatten(grads), lambda *_: limit, order)  # type: ignore[no-any-return]  # grads' own type


def clip_by_norm_(grads: Any, max_norm: Scalar | None, *, ord: float = 2.0) -> None:
    """Clip each leaf by its own norm in place.

    Parameters
    ----------
    grads : array or container of arrays
        As for `clip_by_norm`, writable. On a host, leaves that need no clipping are not written to.
    max_norm, ord
        As for `clip_by_norm`.

    Raises
    ------
    TypeError, ValueError
        As `clip_by_norm`; also if leaves cannot be written, or overlap. Nothing was written then.

    Examples
    --------
    >>> import numpy as np, gradclip
    >>> g = [np.array([3.0, 4.0]), np.array([0.1])]
    >>> gradclip.clip_by_norm_(g, 1.0)
    >>> g
    [array([0.6, 0.8]), array([0.1])]
    """
    limit, order = _checks.threshold(max_norm, "max_norm"), _checks.order(ord)
    clip_each_(flatten(grads), lambda *_: limit, order, "clip_by_norm")


def clip_by_rms(grads: Tree, max_rms: Scalar | None) -> Tree:
    """Return gradients of which each leaf has a root mean square of at most ``max_rms``.

    Parameters
    ----------
    grads : array or container of arrays
        As for `clip_by_global_norm`. Not written to.
    max_rms : float, 0-d array or None
        The largest root mean square (norm / sqrt(size)) of a leaf, at least 0; None or inf for no clipping.

    Returns
    -------
    container of arrays
        Of the structure, shapes, dtypes and devices of ``grads``; leaves that need no clipping bit for bit.

    Raises
    ------
    TypeError
        If a leaf is not a floating-point array, or ``max_rms`` not a number.
    ValueError
        If ``max_rms`` is negative or NaN.

    References
    ----------
    .. [1] N. Shazeer, M. Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018,
       arXiv:1804.04235, section 6: the update U / max(1, RMS(U) / d).

    Examples
    --------
    >>> import numpy as np, gradclip
    >>> gradclip.clip_by_rms([np.array([2.0, -2.0, 2.0, -2.0]), np.array([0.1])], 1.0)
    [array([ 1., -1.,  1., -1.]), array([0.1])]
    """
    limit = _checks.threshold(max_rms, "max_rms")
    return clip_each(flatten(grads), rms_limit(limit), 2.0)  # type: ignore[no-any-return]  # grads' own type


def clip_by_rms_(grads: Any, max_rms: Scalar | None) -> None:
    """Clip each leaf by its own root mean square in place.

    Parameters
    ----------
    grads : array or container of arrays
        As for `clip_by_rms`, writable. On a host, leaves that need no clipping are not written to.
    max_rms
        As for `clip_by_rms`.

    Raises
    ------
    TypeError, ValueError
        As `clip_by_rms`; also if leaves cannot be written, or overlap. Nothing was written then.

    Examples
    --------
    >>> import numpy as np, gradclip
    >>> g = np.array([2.0, -2.0, 2.0, -2.0])
    >>> gradclip.clip_by_rms_(g, 1.0)
    >>> g
    array([ 1., -1.,  1., -1.])
    """
    limit = _checks.threshold(max_rms, "max_rms")
    clip_each_(flatten(grads), rms_limit(limit), 2.0, "clip_by_rms")


def clip_each(leaves: Leaves, limit: Limit, ord: float) -> Any:
    """Return the container with each leaf clipped by its own norm: the algorithm, for any adapter's leaves."""
    if not leaves.arrays:
        return leaves.restore([])
    with np.errstate(all="ignore"):
        return leaves.restore(leaves.ops.scale(leaves.arrays, _each(leaves, limit, ord)))


def clip_each_(leaves: Leaves, limit: Limit, ord: float, pure: str) -> None:
    """Clip each leaf by its own norm in place: the algorithm, for any adapter's leaves."""
    if leaves.arrays:
        with np.errstate(all="ignore"):
            leaves.scale_(_each(leaves, limit, ord), pure)


def _each(leaves: Leaves, limit: Limit, ord: float) -> list[Coefficient]:
    batch = leaves.ops.partials(leaves.arrays, ord)
    c = coefficient(batch, limit(leaves, batch))
    return [c[i, ...] for i in range(len(leaves.arrays))]


def rms_limit(max_rms: Scalar | None) -> Limit:
    """Return the thresholds of norm that are one threshold of root mean square: sqrt(size) times it."""

    def limit(leaves: Leaves, batch: NormPartial) -> Scalar | None:
        if max_rms is None:
            return None
        xp = ns.namespace([batch.total])
        roots = [math.sqrt(max(1, ns.size(x))) for x in leaves.arrays]
        sizes = xp.asarray(roots, dtype=batch.total.dtype, device=ns.device(batch.total))
        rms = max_rms if isinstance(max_rms, float) else xp.astype(max_rms, batch.total.dtype)
        return sizes * rms

    return limit
