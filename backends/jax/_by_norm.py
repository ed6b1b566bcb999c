"""Clipping each leaf by its own norm, or by its own root mean square."""

from typing import Any

from gradclip import _checks
from gradclip._by_norm import clip_each, numels_of
from gradclip._calls import explained
from gradclip._tree import Leaves
from gradclip._types import AnyScalar, Scalar, Tree
from gradclip.backends.jax._eager import compiled
from gradclip.backends.jax._global import limit
from gradclip.backends.jax._mesh import AxisName, names, parts_of
from gradclip.backends.jax._tree import alike, flatten, in_order, refuse_local, scalar, split


def clip_by_norm(
    grads: Tree, max_norm: Scalar | None, *, ord: float = 2.0, axis_name: AxisName = None, donate: bool = False
) -> Tree:
    """Return gradients in which each leaf has a norm of at most ``max_norm``. The host does not wait for the device.

    Parameters
    ----------
    grads : pytree of arrays
        As for `global_norm`.
    max_norm : float, 0-d array or None
        The largest norm of a leaf after clipping, at least 0; None or inf for no clipping.
    ord : float
        The order of the norm, greater than 0, or ``math.inf``.
    axis_name : str, tuple of str or None
        As for `global_norm`: the norms are those of the whole leaves.
    donate : bool
        As for `clip_by_global_norm`.

    Returns
    -------
    pytree of arrays
        Of the structure, shapes, dtypes and shardings of ``grads``. Leaves that need no clipping are equal bit for bit.

    Raises
    ------
    TypeError
        If a leaf is not a floating-point array, or an argument not a number.
    ValueError
        If ``max_norm`` is negative or NaN, or ``ord`` not greater than 0; in ``shard_map``, as for `global_norm`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends.jax import clip_by_norm
    >>> clip_by_norm([jnp.array([3.0, 4.0]), jnp.array([0.5])], 2.5)
    [Array([1.5, 2. ], dtype=float32), Array([0.5], dtype=float32)]
    """
    checked, order = _checks.threshold(max_norm, "max_norm"), _checks.order(ord)
    parts = split(grads)
    refuse_local(axis_name, parts.arrays)
    clipped: Tree = parts.restore(
        _by_norm(parts.arrays, limit(checked), ord=order, axes=names(axis_name), donate=donate)
    )
    return clipped


@explained(optax="clip_by_block_rms(threshold)")
def clip_by_rms(grads: Tree, max_rms: Scalar | None, *, axis_name: AxisName = None, donate: bool = False) -> Tree:
    """Return gradients in which each leaf has a root mean square of at most ``max_rms``.

    The host does not wait for the device.

    Parameters
    ----------
    grads : pytree of arrays
        As for `global_norm`.
    max_rms : float, 0-d array or None
        The largest root mean square (norm / sqrt(numel)) of a leaf after clipping, at least 0; None or inf for no
        clipping.
    axis_name : str, tuple of str or None
        As for `global_norm`: the root mean squares are those of the whole leaves. In ``pmap``, and without
        ``check_vma``, all leaves must be split over it.
    donate : bool
        As for `clip_by_global_norm`.

    Returns
    -------
    pytree of arrays
        Of the structure, shapes, dtypes and shardings of ``grads``. Leaves that need no clipping are equal bit for bit.

    Raises
    ------
    TypeError
        If a leaf is not a floating-point array, or ``max_rms`` not a number.
    ValueError
        If ``max_rms`` is negative or NaN; in ``shard_map``, as for `global_norm`.

    References
    ----------
    .. [1] N. Shazeer, M. Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018,
       arXiv:1804.04235, section 6: the update U / max(1, RMS(U) / d).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends.jax import clip_by_rms
    >>> clip_by_rms([jnp.array([2.0, -2.0, 2.0, -2.0]), jnp.array([0.5])], 1.0)
    [Array([ 1., -1.,  1., -1.], dtype=float32), Array([0.5], dtype=float32)]
    """
    checked = _checks.threshold(max_rms, "max_rms")
    parts = split(grads)
    refuse_local(axis_name, parts.arrays)
    clipped: Tree = parts.restore(_by_rms(parts.arrays, limit(checked), axes=names(axis_name), donate=donate))
    return clipped


@compiled("ord", "axes")
def _by_norm(grads: Any, max_norm: AnyScalar | None, *, ord: float, axes: tuple[str, ...]) -> Any:
    leaves = flatten(grads, axes=axes)
    groups, number = alike(leaves), scalar(leaves, max_norm, None)
    return leaves.restore(in_order(groups, [clip_each(some, number, ord) for _, some in groups]))


def whole_numels(leaves: Leaves, axes: tuple[str, ...]) -> list[int]:
    """Return the numel of each whole leaf, of which each device along ``axes`` has a part."""
    return [parts_of(x, axes) * n for x, n in zip(leaves.arrays, numels_of(leaves), strict=True)]


@compiled("axes")
def _by_rms(grads: Any, max_rms: AnyScalar | None, *, axes: tuple[str, ...]) -> Any:
    leaves = flatten(grads, axes=axes)
    groups, number = alike(leaves), scalar(leaves, max_rms, None)
    clipped = [clip_each(some, number, 2.0, whole_numels(some, axes)) for _, some in groups]
    return leaves.restore(in_order(groups, clipped))
