"""Adaptive gradient clipping (AGC): each unit of a leaf is clipped relative to the norm of its parameters."""

import math
from typing import Any

import jax

from gradclip._adaptive import UnitRule, clip_units
from gradclip._calls import explained
from gradclip._tree import Leaves
from gradclip._types import AnyArray, AnyScalar, Axes, Scalar, Tree
from gradclip.backends.jax._eager import compiled
from gradclip.backends.jax._global import limit
from gradclip.backends.jax._mesh import AxisName, names
from gradclip.backends.jax._tree import flatten, refuse_local, scalar, split


@explained(optax="adaptive_grad_clip(clipping)")
def adaptive_grad_clip(
    grads: Tree,
    params: Any,
    clipping: Scalar = 0.01,
    *,
    eps: Scalar = 1e-3,
    axis: int | Axes | None = None,
    axis_name: AxisName = None,
    donate: bool = False,
) -> Tree:
    r"""Return gradients whose norm, unit by unit, is at most ``clipping`` times that of the parameters (AGC).

    .. math:: G_i \leftarrow G_i \cdot \min\Big(1, \lambda\,\frac{\max(\|W_i\|, \epsilon)}{\|G_i\|}\Big)

    Parameters
    ----------
    grads : pytree of arrays
        As for `global_norm`.
    params : pytree of arrays
        The parameters, of the structure and the shapes of ``grads``. Where ``grads`` has None, any value will do.
    clipping : float or 0-d array
        λ, at least 0: the largest ratio of a unit's gradient norm to its parameter norm. inf for no clipping.
    eps : float or 0-d array
        ε, at least 0: smaller parameter norms count as ε, so that parameters that are zero can change.
    axis : int, tuple of int or None
        The axes of a unit. None: a leaf with at most one axis longer than 1 is one unit; in other leaves, a unit has
        axis 0 of 2 or 3 axes, axes 0-2 of 4, axes 0-3 of 5, as the layouts of Flax and Haiku need.
    axis_name : str, tuple of str or None
        In ``shard_map`` and ``pmap``: the mesh axes that units are split over; () if each device has whole units.
        Leaves whose units are split differently need calls of their own.
    donate : bool
        As for `clip_by_global_norm`.

    Returns
    -------
    pytree of arrays
        Of the structure, shapes, dtypes and shardings of ``grads``. Units that need no clipping are equal bit for bit.

    Raises
    ------
    TypeError
        If a leaf is not a floating-point array, or an argument not a number.
    ValueError
        If the pytrees do not match, a leaf has more than 5 axes and ``axis`` is None, or an argument is out of range;
        in ``shard_map``, if a leaf varies over mesh axes and ``axis_name`` is None.

    References
    ----------
    .. [1] A. Brock, S. De, S. L. Smith, K. Simonyan, "High-Performance Large-Scale Image Recognition Without
       Normalization", ICML 2021, arXiv:2102.06171, equation 3.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends.jax import adaptive_grad_clip
    >>> adaptive_grad_clip(jnp.array([3.0, 4.0]), jnp.array([0.0, 5.0]), 0.5)
    Array([1.5, 2. ], dtype=float32)
    """
    rule = UnitRule(clipping, eps, axis)
    over, parts = names(axis_name), split(grads)
    refuse_local(axis_name, parts.arrays)
    weights = split(beside(parts.arrays, params), "params").arrays
    axes = axis if axis is None or isinstance(axis, int) else tuple(axis)
    numbers = limit(rule.clipping), rule.eps
    clipped: Tree = parts.restore(_adaptive(parts.arrays, weights, *numbers, axis=axes, over=over, donate=donate))
    return clipped


@compiled("axis", "over")
def _adaptive(
    grads: Any,
    params: Any,
    clipping: AnyScalar | None,
    eps: AnyScalar,
    *,
    axis: int | Axes | None,
    over: tuple[str, ...],
) -> Any:
    leaves, weights = matched(grads, params, over)
    rule = UnitRule(scalar(leaves, clipping, math.inf), scalar(leaves, eps, None), axis)
    return clip_units(leaves, weights, rule)


def matched(grads: Any, params: Any, over: tuple[str, ...] = ()) -> tuple[Leaves, list[AnyArray]]:
    """Return the leaves of the gradients, split over these mesh axes, and the parameter of each leaf."""
    leaves = flatten(grads, axes=over, beside=params)
    return leaves, flatten(params, "params").arrays


def beside(grads: Any, params: Any) -> Any:
    """Return the parameters with None where there is no gradient."""
    try:
        return jax.tree.map(lambda g, p: None if g is None else p, grads, params, is_leaf=lambda g: g is None)
    except ValueError as e:
        raise ValueError(
            f"params has a different structure from grads ({e}), expected the same; "
            "pass both as pytrees of one structure"
        ) from e
