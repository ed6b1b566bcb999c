"""Norms of a pytree: of all leaves together, of each leaf, and as a partial norm that can be merged with others."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from gradclip import _checks
from gradclip._norms import norms_of
from gradclip._partial import NormPartial
from gradclip._types import AnyArray, Tree
from gradclip.backends.jax._eager import compiled
from gradclip.backends.jax._mesh import AxisName, names
from gradclip.backends.jax._tree import alike, flatten, in_order, refuse_local, split


def global_norm(grads: Any, *, ord: float = 2.0, axis_name: AxisName = None) -> Array:
    r"""Return the norm of all leaves laid end to end.

    .. math:: \|g\|_p = \Big(\sum_{\text{leaves}} \sum_i |g_i|^p\Big)^{1/p}

    Under ``jit``, if arrays are sharded over devices, this is the norm of the whole arrays.

    Parameters
    ----------
    grads : pytree of arrays
        Leaves of any shape and any real or complex floating-point dtype. None, float0 and functions are left out. A
        leaf that is passed twice is two leaves, because JAX arrays are values.
    ord : float
        The order p, greater than 0, or ``math.inf`` for the largest absolute value.
    axis_name : str, tuple of str or None
        In ``shard_map`` and ``pmap``: the mesh axes that the leaves are split over. One small collective computes the
        norm of the whole leaves on every device. A leaf that JAX knows to be the same along an axis counts once. With
        (), each device's part is taken for itself.

    Returns
    -------
    array
        0-d, float32; float64 if any leaf is float64 or complex128. Relative error at most 1e-6 (float64: 1e-14) at any
        size and magnitude; inf where the dtype cannot represent the norm. 0 for an empty pytree. Differentiable, with
        a derivative of 0 at zero. Nothing is read back from the device.

    Raises
    ------
    TypeError
        If a leaf is not a floating-point array; the message has its path.
    ValueError
        If ``ord`` is not greater than 0; in ``shard_map``, if a leaf varies over mesh axes and ``axis_name`` is None,
        because the norm would be that of one device's part.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
       arXiv:1211.5063: choose the threshold from the values of this norm.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends.jax import global_norm
    >>> global_norm({"w": jnp.array([[3.0], [0.0]]), "b": jnp.array([4.0])})
    Array(5., dtype=float32)
    >>> global_norm(jnp.full(4, 1e20))
    Array(2.e+20, dtype=float32)
    """
    order = _checks.order(ord)
    axes, parts = names(axis_name), split(grads)
    refuse_local(axis_name, parts.arrays)
    norm: Array = _global_norm(parts.arrays, ord=order, axes=axes)
    return norm


def leaf_norms(grads: Tree, *, ord: float = 2.0, axis_name: AxisName = None) -> Tree:
    """Return the norm of each leaf, in a pytree of the same structure.

    Parameters
    ----------
    grads : pytree of arrays
        As for `global_norm`.
    ord : float
        The order, greater than 0, or ``math.inf``.
    axis_name : str, tuple of str or None
        As for `global_norm`: each norm is that of the whole leaf.

    Returns
    -------
    pytree of arrays
        0-d norms in place of the leaves: float64 for float64 and complex128 leaves, else float32. The host does not
        wait for them.

    Raises
    ------
    TypeError
        If a leaf is not a floating-point array.
    ValueError
        If ``ord`` is not greater than 0; in ``shard_map``, as for `global_norm`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends.jax import leaf_norms
    >>> leaf_norms({"w": jnp.array([3.0, 4.0]), "b": None})
    {'b': None, 'w': Array(5., dtype=float32)}
    """
    order = _checks.order(ord)
    parts = split(grads)
    refuse_local(axis_name, parts.arrays)
    norms: Tree = parts.restore(_leaf_norms(parts.arrays, ord=order, axes=names(axis_name)))
    return norms


def norm_partial(grads: Any, *, ord: float = 2.0, axis_name: AxisName = None) -> NormPartial:
    """Return the partial norm of these gradients, which can be merged with the partial norms of others.

    NormPartial is registered as a pytree, so it can be passed through ``jit``, ``scan`` and collectives.

    Parameters
    ----------
    grads : pytree of arrays
        As for `global_norm`.
    ord : float
        The order, greater than 0, or ``math.inf``. Only partial norms of the same order can be merged.
    axis_name : str, tuple of str or None
        As for `global_norm`: the partial norm is merged over these axes. None: it is that of this device's part.

    Returns
    -------
    NormPartial
        0-d, of the norm's dtype.

    Raises
    ------
    TypeError
        If a leaf is not a floating-point array.
    ValueError
        If ``ord`` is not greater than 0.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends.jax import norm_partial
    >>> first, second = norm_partial([jnp.array([3.0])]), norm_partial([jnp.array([4.0])])
    >>> first.merge(second).norm()
    Array(5., dtype=float32)
    """
    order = _checks.order(ord)
    partial: NormPartial = _norm_partial(split(grads).arrays, ord=order, axes=names(axis_name))
    return partial


@compiled("ord", "axes")
def _global_norm(grads: Any, *, ord: float, axes: tuple[str, ...]) -> AnyArray:
    return jnp.asarray(flatten(grads, axes=axes).partial(ord).norm())


@compiled("ord", "axes")
def _leaf_norms(grads: Any, *, ord: float, axes: tuple[str, ...]) -> Any:
    leaves = flatten(grads, axes=axes)
    groups = alike(leaves)
    return leaves.restore(in_order(groups, [norms_of(some, ord) for _, some in groups]))


@compiled("ord", "axes")
def _norm_partial(grads: Any, *, ord: float, axes: tuple[str, ...]) -> NormPartial:
    partial = flatten(grads, axes=axes).partial(ord)
    dtype = jnp.dtype(partial.dtype).name  # jnp's own dtype object: the pytree's static data must compare equal
    return NormPartial(jnp.asarray(partial.scale), jnp.asarray(partial.total), ord, getattr(jnp, dtype))
