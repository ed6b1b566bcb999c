"""Clipping of spikes: each element is limited by the second moment that Adam keeps of it."""

from typing import Any

import jax

from gradclip import _checks
from gradclip._calls import explained
from gradclip._spikes import clip_spikes_of
from gradclip._types import AnyScalar, Scalar, Tree
from gradclip.backends.jax._eager import compiled
from gradclip.backends.jax._tree import flatten, scalar, split


@explained()
def clip_spikes(grads: Tree, second_moments: Any, threshold: Scalar = 5000.0, *, donate: bool = False) -> Tree:
    r"""Return gradients in which each element's square is at most ``threshold`` times its second moment (SPAM).

    .. math:: g \leftarrow \operatorname{sign}(g)\,\sqrt{\theta v} \quad \text{where } g^2 > \theta v

    Parameters
    ----------
    grads : pytree of arrays
        As for `global_norm`, of real dtypes.
    second_moments : pytree of arrays
        v: the running means of squares that Adam keeps (in optax, ``ScaleByAdamState.nu``), before the update by
        ``grads``; of the structure and the shapes of ``grads``.
    threshold : float or 0-d array
        θ, at least 0; inf: no clipping.
    donate : bool
        As for `clip_by_global_norm`.

    Returns
    -------
    pytree of arrays
        Of the structure, shapes, dtypes and shardings of ``grads``. NaN stays NaN, ±inf becomes the bounds.

    Raises
    ------
    TypeError
        If a leaf is complex or not a floating-point array, or ``threshold`` is not a number.
    ValueError
        If structures or shapes differ, or ``threshold`` is negative or NaN.

    Notes
    -----
    SPAM clips from its twentieth step on, and not in the 20 steps after it has set the moments to zero. An element
    whose v is 0 is not clipped here; in SPAM's code it becomes 0, so that its v stays 0.

    References
    ----------
    .. [1] T. Huang, Z. Zhu, G. Jin, L. Liu, Z. Wang, S. Liu, "SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM
       Training", ICLR 2025, arXiv:2501.06842, section 4.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends.jax import clip_spikes
    >>> clip_spikes(jnp.array([0.1, -9.0]), jnp.array([0.01, 0.01]), 100.0)
    Array([ 0.1, -1. ], dtype=float32)
    """
    theta = _checks.threshold(threshold, "threshold", optional=False)
    parts, moments = split(grads), split(second_moments, "second_moments")
    trees: list[Any] = [jax.tree.structure(part.arrays) for part in (parts, moments)]
    mine, theirs = trees
    if mine != theirs:
        raise ValueError(
            f"second_moments has the structure {theirs} and grads {mine}, expected the same; pass both in containers "
            "of one structure"
        )
    clipped: Tree = parts.restore(_clip_spikes(parts.arrays, moments.arrays, theta, donate=donate))
    return clipped


@compiled()
def _clip_spikes(grads: Any, moments: Any, threshold: AnyScalar) -> Any:
    leaves = flatten(grads)
    return clip_spikes_of(leaves, jax.tree.leaves(moments), scalar(leaves, threshold, None))
