"""Clipping by the global norm: one coefficient for all leaves, so that the direction of the gradient stays."""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from gradclip import _checks
from gradclip._calls import explained
from gradclip._decision import Rule
from gradclip._global import clip_leaves, clip_leaves_with
from gradclip._nonfinite import refuse_nonfinite
from gradclip._partial import NormPartial, from_norm
from gradclip._types import AnyArray, AnyScalar, Nonfinite, Scalar, Tree
from gradclip.backends.jax._eager import compiled
from gradclip.backends.jax._mesh import AxisName, names
from gradclip.backends.jax._norms import norm_partial
from gradclip.backends.jax._tree import flatten, refuse_local, scalar, split


@explained(optax="clip_by_global_norm(max_norm)")
def clip_by_global_norm(
    grads: Tree,
    max_norm: Scalar | None,
    *,
    ord: float = 2.0,
    nonfinite: Nonfinite = "propagate",
    scale: Scalar = 1.0,
    eps: Scalar = 0.0,
    axis_name: AxisName = None,
    donate: bool = False,
) -> tuple[Tree, Array]:
    r"""Return gradients whose norm is at most ``max_norm``, and the norm before clipping.

    .. math:: g \leftarrow g \cdot \min\big(1, \tfrac{\text{max\_norm}}{\|g\| + \text{eps}}\big)

    Parameters
    ----------
    grads : pytree of arrays
        As for `global_norm`.
    max_norm : float, 0-d array or None
        The largest norm after clipping, at least 0. With None or inf, nothing is clipped and only the norm is computed.
        If it is traced, a negative value cannot be checked and counts as 0.
    ord : float
        The order of the norm, greater than 0, or ``math.inf``.
    nonfinite : {"propagate", "error", "zero"}
        What happens to gradients with NaN or inf. "propagate": if one element is NaN, all become NaN; if one is inf,
        infinite elements become NaN and finite ones 0. "error": raises NonFiniteError; it reads the gradients a second
        time and one flag back from the device, and cannot be traced. "zero": all leaves become zero, decided on the
        device. The norm is returned as it was, NaN or inf.
    scale : float or 0-d array
        The loss scale, greater than 0. The gradients are divided by it in the same pass. ``max_norm`` and the norm
        refer to the unscaled gradients.
    eps : float or 0-d array
        Added to the norm in the denominator, to get the results of libraries that do so (PyTorch: 1e-6).
    axis_name : str, tuple of str or None
        In ``shard_map`` and ``pmap``: the mesh axes that the leaves are split over, as for `global_norm`.
    donate : bool
        Whether the result may take over the memory of ``grads``, whose arrays are then deleted. Arrays that share
        memory with each other or with another argument are copied first. It has no effect under transformations such as
        ``jit``, where the outermost call decides.

    Returns
    -------
    clipped : pytree of arrays
        Of the structure, shapes, dtypes and shardings of ``grads``. The leaves are multiplied in float32 or wider and
        rounded once. If nothing is clipped, they are equal to ``grads`` bit for bit.
    norm : array
        The norm before clipping, as `global_norm` returns it: 0-d. The host does not wait for it.

    Raises
    ------
    TypeError
        If a leaf is not a floating-point array, or an argument not a number.
    ValueError
        If ``max_norm`` is negative or NaN, ``ord`` or ``scale`` not greater than 0, ``eps`` negative (as far as these
        are Python numbers), ``nonfinite`` an unknown name, or ``nonfinite="error"`` is traced; in ``shard_map``, if a
        leaf varies over mesh axes and ``axis_name`` is None.
    NonFiniteError
        If a gradient is NaN or inf and ``nonfinite="error"``. Then ``grads`` are not deleted, even with ``donate``.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
       arXiv:1211.5063, Algorithm 1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends.jax import clip_by_global_norm
    >>> clipped, norm = clip_by_global_norm({"w": jnp.array([3.0]), "b": jnp.array([4.0])}, 2.5)
    >>> clipped, norm
    ({'b': Array([2.], dtype=float32), 'w': Array([1.5], dtype=float32)}, Array(5., dtype=float32))
    """
    rule = Rule(max_norm, ord, nonfinite, scale, eps)
    axes, parts = names(axis_name), split(grads)
    refuse_local(axis_name, parts.arrays)
    if rule.nonfinite == "error":
        total = norm_partial(parts.arrays, ord=rule.ord, axis_name=axes).total
        refuse_nonfinite(flatten(parts.arrays), jnp.isfinite(total), rule.ord)
    clipped, norm = _clip(
        parts.arrays,
        limit(rule.max_norm),
        None if _is(rule.loss_scale, 1) else rule.loss_scale,
        None if _is(rule.eps, 0) else rule.eps,
        ord=rule.ord,
        nonfinite="zero" if rule.nonfinite == "zero" else "propagate",
        axes=axes,
        donate=donate,
    )
    return parts.restore(clipped), norm


def clip_with_norm(grads: Tree, max_norm: Scalar | None, norm: Scalar | NormPartial, *, donate: bool = False) -> Tree:
    """Return gradients clipped by a norm that was computed elsewhere: the second half of `clip_by_global_norm`.

    Use it if ``grads`` are a part of all gradients, whose norm was merged from partial norms (see `norm_partial`).

    Parameters
    ----------
    grads : pytree of arrays
        As for `global_norm`.
    max_norm : float, 0-d array or None
        The largest norm of all gradients after clipping, at least 0; None or inf for no clipping.
    norm : float, 0-d array or NormPartial
        The norm of all gradients. With a NormPartial the result is right even if the norm overflows.
    donate : bool
        As for `clip_by_global_norm`.

    Returns
    -------
    pytree of arrays
        ``grads`` times min(1, max_norm / norm).

    Raises
    ------
    TypeError
        If a leaf is not a floating-point array, or an argument not a number.
    ValueError
        If ``max_norm`` is negative or NaN, or ``norm`` negative.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends.jax import clip_with_norm, norm_partial
    >>> here, elsewhere = jnp.array([3.0]), jnp.array([4.0])
    >>> whole = norm_partial(here).merge(norm_partial(elsewhere))
    >>> clip_with_norm(here, 2.5, whole)
    Array([1.5], dtype=float32)
    """
    checked, known = _checks.threshold(max_norm, "max_norm"), _checks.known_norm(norm)
    parts = split(grads)
    clipped: Tree = parts.restore(_clip_with(parts.arrays, limit(checked), known, donate=donate))
    return clipped


def limit(threshold: AnyScalar | None) -> AnyScalar | None:
    """Return a threshold, or None if it is known to be inf."""
    return None if _is(threshold, math.inf) else threshold


def _is(value: AnyScalar | None, number: float) -> bool:
    return isinstance(value, float) and value == number


@compiled("ord", "nonfinite", "axes")
def _clip(
    grads: Any,
    max_norm: AnyScalar | None,
    scale: AnyScalar | None,
    eps: AnyScalar | None,
    *,
    ord: float,
    nonfinite: Nonfinite,
    axes: tuple[str, ...],
) -> tuple[Any, AnyArray]:
    leaves = flatten(grads, axes=axes)
    numbers = scalar(leaves, max_norm, None), scalar(leaves, scale, 1.0), scalar(leaves, eps, 0.0)
    clipped, decision = clip_leaves(leaves, Rule(numbers[0], ord, nonfinite, *numbers[1:]))
    return clipped, jnp.asarray(decision.norm)


@compiled()
def _clip_with(grads: Any, max_norm: AnyScalar | None, norm: AnyScalar | NormPartial) -> Any:
    leaves = flatten(grads)
    known = norm if isinstance(norm, NormPartial) else from_norm(jnp, scalar(leaves, norm, None))
    return clip_leaves_with(leaves, scalar(leaves, max_norm, None), known)
