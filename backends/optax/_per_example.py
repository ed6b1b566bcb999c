"""Clipping each example of a batch, with optax's names: functions of gradients whose leading axis is the example."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradclip import _checks
from gradclip._per_example import check_batch, clip_examples
from gradclip._types import AnyScalar, Scalar
from gradclip.backends import jax as gj
from gradclip.backends.jax._eager import compiled
from gradclip.backends.jax._global import limit
from gradclip.backends.jax._per_example import split_examples
from gradclip.backends.jax._tree import flatten, scalar


def per_example_global_norm_clip(grads: Any, l2_norm_clip: Scalar) -> tuple[Any, Array]:
    """Return the sum of the examples' gradients, each clipped by its norm: `optax.per_example_global_norm_clip`.

    Parameters
    ----------
    grads : pytree of arrays
        Gradients of shape ``(batch, ...)``. Integers are converted to float32, as in optax.
    l2_norm_clip : float or 0-d array
        The largest norm of an example's gradient, over all leaves, at least 0.

    Returns
    -------
    summed : pytree of arrays
        Without the leading axis, in the dtypes of ``grads``; added up in float32 or wider.
    clipped : array
        0-d, int32: the number of examples that were clipped.

    Raises
    ------
    TypeError
        If a leaf is no array of numbers, or ``l2_norm_clip`` not a number.
    ValueError
        If leaves have no leading axis or differ in its length, or ``l2_norm_clip`` is negative or NaN.

    References
    ----------
    .. [1] M. Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, arXiv:1607.00133.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends import optax as gradclip
    >>> grads = [jnp.array([[0, 0, 0], [0, 3, 4], [4, 0, 3], [3, 4, 0]])]
    >>> gradclip.per_example_global_norm_clip(grads, jnp.inf)
    ([Array([7., 7., 7.], dtype=float32)], Array(0, dtype=int32))
    >>> gradclip.per_example_global_norm_clip(grads, 0.0)
    ([Array([0., 0., 0.], dtype=float32)], Array(3, dtype=int32))
    >>> gradclip.per_example_global_norm_clip(grads, 1.25)
    ([Array([1.75, 1.75, 1.75], dtype=float32)], Array(3, dtype=int32))
    """
    return gj.clip_per_example(_real(grads), l2_norm_clip)


def per_example_layer_norm_clip(grads: Any, global_l2_norm_clip: Scalar, uniform: bool = True) -> tuple[Any, Any]:
    r"""Return the sum of the examples' gradients, clipped leaf by leaf: `optax.per_example_layer_norm_clip`.

    Leaf i of K gets the threshold :math:`C / \sqrt K`, or with ``uniform=False`` :math:`C \sqrt{D_i / D}`, where
    :math:`D_i` of D elements are in leaf i. So the norm of all leaves together is at most C.

    Parameters
    ----------
    grads : pytree of arrays
        As for `per_example_global_norm_clip`.
    global_l2_norm_clip : float or 0-d array
        The largest norm C of an example's gradient, over all leaves, at least 0.
    uniform : bool
        Whether all leaves have the same threshold.

    Returns
    -------
    summed : pytree of arrays
        Without the leading axis, in the dtypes of ``grads``; added up in float32 or wider.
    clipped : pytree of arrays
        For each leaf, the number of examples that were clipped: 0-d, int32.

    Raises
    ------
    TypeError
        If a leaf is no array of numbers, or the threshold not a number.
    ValueError
        If leaves have no leading axis or differ in its length, or the threshold is negative or NaN.

    References
    ----------
    .. [1] H. B. McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018,
       arXiv:1710.06963.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends import optax as gradclip
    >>> grads = [jnp.array([[0, 0, 0], [0, 3, 4], [4, 0, 3], [3, 4, 0]])]
    >>> gradclip.per_example_layer_norm_clip(grads, 1.25)
    ([Array([1.75, 1.75, 1.75], dtype=float32)], [Array(3, dtype=int32)])
    """
    checked = _checks.threshold(global_l2_norm_clip, "global_l2_norm_clip", optional=False)
    parts = split_examples(_real(grads))
    summed, counts = _by_layer(parts.arrays, limit(checked), uniform=bool(uniform))
    return parts.restore(summed), counts


@compiled("uniform")
def _by_layer(grads: Any, most: AnyScalar | None, *, uniform: bool) -> tuple[Any, Any]:
    leaves = flatten(grads)
    check_batch(leaves)
    sizes = [1 if uniform else math.prod(x.shape[1:]) for x in leaves.arrays]
    shares = [math.sqrt(size / max(1, sum(sizes))) for size in sizes]
    number = scalar(leaves, most, None)
    done = [
        clip_examples(flatten([x]), None if number is None else number * share)
        for x, share in zip(leaves.arrays, shares, strict=True)
    ]
    return leaves.restore([summed for (summed,), _ in done]), leaves.restore([count for _, count in done])


def _real(grads: Any) -> Any:
    """Return gradients in which integer leaves are float32."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32) if _is_integer(x) else x, grads)


def _is_integer(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.integer)
