"""Clipping each example's gradient by its own norm and adding them up, as differentially private training does."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradclip import _checks
from gradclip._per_example import clip_examples
from gradclip._types import AnyArray, AnyScalar, Scalar, Tree
from gradclip.backends.jax._eager import compiled
from gradclip.backends.jax._global import limit
from gradclip.backends.jax._tree import Parts, flatten, is_float0, scalar, split


def clip_per_example(grads: Tree, max_norm: Scalar | None) -> tuple[Tree, Array]:
    """Return the sum of the examples' gradients, each clipped by its global norm, and how many were clipped.

    Parameters
    ----------
    grads : pytree of arrays
        Gradients of shape ``(batch, ...)``, as ``jax.vmap(jax.grad(loss))`` returns them: the leading axis of every
        leaf is the example.
    max_norm : float, 0-d array or None
        The largest norm of an example's gradient over all leaves, at least 0; None or inf for no clipping.

    Returns
    -------
    summed : pytree of arrays
        Of the structure and dtypes of ``grads``, without the leading axis. Sums are computed in float32 or wider.
    clipped : array
        0-d, int32: the number of examples whose norm exceeded ``max_norm``. The host does not wait for it.

    Raises
    ------
    TypeError
        If a leaf is not a floating-point array, or ``max_norm`` not a number.
    ValueError
        If leaves have no leading axis or differ in its length, or ``max_norm`` is negative or NaN.

    References
    ----------
    .. [1] M. Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, arXiv:1607.00133, Algorithm 1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends.jax import clip_per_example
    >>> clip_per_example([jnp.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.5]])], 2.5)
    ([Array([1.5, 2.5], dtype=float32)], Array(1, dtype=int32))
    """
    checked = _checks.threshold(max_norm, "max_norm")
    parts = split_examples(grads)
    summed, clipped = _per_example(parts.arrays, limit(checked))
    return parts.restore(summed), clipped


def split_examples(grads: Any) -> Parts:
    """Split gradients of examples into arrays and others. float0 loses its leading axis, as in a sum over examples."""
    parts = split(grads)
    others = jax.tree.map(lambda x: np.zeros(x.shape[1:], x.dtype) if is_float0(x) else x, parts.others)
    return Parts(parts.arrays, others)


@compiled()
def _per_example(grads: Any, max_norm: AnyScalar | None) -> tuple[Any, AnyArray]:
    leaves = flatten(grads)
    if not leaves.arrays:
        return grads, jnp.zeros((), dtype=jnp.int32)
    return clip_examples(leaves, scalar(leaves, max_norm, None))
