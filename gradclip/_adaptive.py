"""Adaptive gradient clipping: each unit of a leaf is clipped by the norm of the same unit of its parameter."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import optree

from gradclip import _checks, _dtypes
from gradclip import _namespace as ns
from gradclip._calls import remedies
from gradclip._coefficient import Coefficient, coefficient
from gradclip._containers import Containers
from gradclip._partial import NormPartial
from gradclip._powers import root
from gradclip._tree import Leaves
from gradclip._types import AnyArray, AnyScalar, ArrayT, Axes, Scalar, Tree, Units


class Adaptive(Containers[ArrayT]):
    """Adaptive gradient clipping (AGC)."""

    @remedies(optax="adaptive_grad_clip(clipping)")
    def adaptive_grad_clip(
        self,
        grads: Tree,
        params: Any,
        clipping: Scalar = 0.01,
        *,
        eps: Scalar = 1e-3,
        axis: int | tuple[int, ...] | None = None,
    ) -> Tree:
        r"""Return gradients whose norm, unit by unit, is at most ``clipping`` times that of the parameters (AGC).

        .. math:: G_i \leftarrow G_i \cdot \min\Big(1, \lambda\,\frac{\max(\|W_i\|, \epsilon)}{\|G_i\|}\Big)

        The host waits for no accelerator.

        Parameters
        ----------
        grads : array or container of arrays
            As for `clip_by_global_norm`. Not written to.
        params : array or container of arrays
            The parameters, of the structure and the shapes of ``grads``.
        clipping : float or 0-d array
            λ, at least 0: the largest ratio of a gradient's norm to its parameter's norm. inf: no clipping.
        eps : float or 0-d array
            ε, at least 0: a smaller norm of a unit's parameters is replaced by ε, so that parameters of zero can
            change.
        axis : int, tuple of int or None
            The axes of a unit. None is for JAX's layouts: a leaf with at most one axis longer than 1 is one unit; in
            other leaves, a unit has axis 0 of 2 or 3 axes, axes 0-2 of 4, axes 0-3 of 5. For PyTorch's layouts, pass
            all axes but the first.

        Returns
        -------
        container of arrays
            Of the structure, shapes, dtypes and devices of ``grads``. Units that need no clipping are equal bit for
            bit.

        Raises
        ------
        TypeError
            If a leaf is not a floating-point array, or another argument is not a number.
        ValueError
            If structures or shapes differ, ``clipping`` or ``eps`` is negative or NaN, ``axis`` has repeated axes or
            axes that a leaf lacks, or a leaf has axes of unknown lengths (Dask) or, if ``axis`` is None, more than 5.

        References
        ----------
        .. [1] A. Brock, S. De, S. L. Smith, K. Simonyan, "High-Performance Large-Scale Image Recognition Without
           Normalization", ICML 2021, arXiv:2102.06171, equation 3.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> grads, params = np.array([[3.0, 0.0], [4.0, 0.01]]), np.ones((2, 2))
        >>> gradclip.adaptive_grad_clip(grads, params, 0.5, axis=1)
        array([[0.70710678, 0.        ],
               [0.70710457, 0.00176776]])
        """
        rule, leaves = self._rule(clipping, eps, axis), self.leaves(grads)
        clipped: Tree = clip_units(leaves, self._weights(leaves, grads, params), rule)
        return clipped

    def adaptive_grad_clip_(
        self,
        grads: Any,
        params: Any,
        clipping: Scalar = 0.01,
        *,
        eps: Scalar = 1e-3,
        axis: int | tuple[int, ...] | None = None,
    ) -> None:
        """Clip gradients in place, unit by unit, to ``clipping`` times the norm of the parameters (AGC).

        Parameters
        ----------
        grads : writable array or container of arrays
            As for `clip_by_global_norm_`. On a host, leaves that need no clipping are not written.
        params, clipping, eps, axis
            As for `adaptive_grad_clip`.

        Raises
        ------
        TypeError
            As for `adaptive_grad_clip`; also if a leaf cannot be written.
        ValueError
            As for `adaptive_grad_clip`; also if leaves overlap in memory. All errors are raised before the first write.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> g = np.array([3.0, 4.0])
        >>> gradclip.adaptive_grad_clip_(g, np.array([1.0, 0.0]), 0.5)
        >>> g
        array([0.3, 0.4])
        """
        rule, leaves = self._rule(clipping, eps, axis), self.leaves_(grads, "adaptive_grad_clip_")
        clip_units_(leaves, self._weights(leaves, grads, params), rule)

    def _rule(self, clipping: Scalar, eps: Scalar, axis: int | Axes | None) -> "UnitRule":
        return UnitRule(clipping, eps, self.units(axis))

    def _weights(self, leaves: Leaves, grads: Any, params: Any) -> list[AnyArray]:
        return matching(leaves, grads, params, lambda kept: self.params(kept, leaves))


class UnitRule:
    """The checked arguments of adaptive gradient clipping. ``axis`` may also be a function of a leaf's shape."""

    def __init__(self, clipping: object, eps: object, axis: Units) -> None:
        self.clipping = _checks.threshold(clipping, "clipping", optional=False)
        self.eps = _checks.not_negative(eps, "eps")
        self.axis = axis

    def coefficients(self, leaves: Leaves, weights: Sequence[AnyArray]) -> Sequence[Coefficient]:
        """Return the coefficients of each leaf's units."""
        _check_shapes(leaves, weights)
        grads, along = leaves.arrays, leaves.coefficients_along
        axes = [unit_axes(tuple(x.shape), self.axis, leaves.array_paths, i) for i, x in enumerate(grads)]
        if isinstance(self.clipping, float) and self.clipping == math.inf:
            return along(_unclipped, [grads], axes)
        return along(_coefficient, [grads, weights], axes, self.clipping, self.eps)


def _unclipped(one: Sequence[NormPartial]) -> Coefficient:
    """Return coefficients that clip no unit, for which the norms of weights are not needed."""
    return coefficient(one[0], None)


def _coefficient(both: Sequence[NormPartial], clipping: AnyScalar, eps: AnyScalar) -> Coefficient:
    """Return the coefficients of units from the partial norms of their gradients, and those of their weights."""
    of_grad, of_weight, multiplier = _comparable(*both)
    xp = ns.namespace([multiplier])
    norm, least = of_weight.scale * root(xp, of_weight.total, 2.0), eps * multiplier
    floored = xp.where((norm > least) | (norm != norm), norm, least)  # NaN stays, of either
    return coefficient(of_grad, floored * clipping)


def _comparable(one: NormPartial, other: NormPartial) -> tuple[NormPartial, NormPartial, AnyArray]:
    """Return both norms times a power of two, and that number: a small one where both are large, so none overflows."""
    xp = ns.namespace([one.total])
    small = xp.full_like(one.scale, 2.0**-512 if _dtypes.is_double(one.scale.dtype) else 2.0**-64)
    multiplier = xp.where((one.scale * small > 1) & (other.scale * small > 1), small, xp.ones_like(one.scale))
    one, other = (NormPartial(p.scale * multiplier, p.total, p.ord, p.dtype) for p in (one, other))
    return one, other, multiplier


def clip_units(leaves: Leaves, weights: Sequence[AnyArray], rule: UnitRule) -> Any:
    """Return the container of leaves clipped unit by unit: the algorithm, for any adapter's leaves.

    ``weights`` has the parameter of each of ``leaves.arrays``.
    """
    return leaves.scale(rule.coefficients(leaves, weights))


def clip_units_(leaves: Leaves, weights: Sequence[AnyArray], rule: UnitRule) -> None:
    """Clip leaves unit by unit in place. Adapters call it with their own leaves."""
    leaves.scale_(rule.coefficients(leaves, weights), "adaptive_grad_clip")


def unit_axes(shape: tuple[int, ...], axis: Units, paths: Callable[[], list[str]], position: int) -> Axes:
    """Return the axes of a unit of a leaf, as `adaptive_grad_clip` describes them."""
    rank = len(shape)
    if callable(axis):
        return axis(shape)
    if axis is None:
        if sum(n != 1 for n in shape) <= 1:
            return tuple(range(rank))
        if rank > 5:
            raise ValueError(
                f"{paths()[position]} has {rank} axes, expected at most 5 for axis=None; pass the axes of a unit as "
                "axis="
            )
        return tuple(range({2: 1, 3: 1}.get(rank, rank - 1)))
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    if not axes or not all(-rank <= a < rank for a in axes) or len({a % rank for a in axes}) < len(axes):
        raise ValueError(
            f"axis={axis!r}, expected distinct axes of {paths()[position]}, which has shape {shape}; "
            f"pass axes below {rank}"
        )
    return tuple(sorted(a % rank for a in axes))


def matching(
    leaves: Leaves, grads: Any, params: Any, flatten: Callable[[Any], Leaves], name: str = "params"
) -> list[AnyArray]:
    """Return the parameter of each distinct gradient; ``flatten`` returns the parameters, one for each position.

    ``name`` is what error messages call the parameters: other arrays may be passed in their place.
    """
    try:
        kept = optree.tree_map(lambda g, p: None if g is None else p, grads, params, none_is_leaf=True)
    except ValueError as e:
        raise ValueError(
            f"{name} has a different structure from grads ({str(e)[:100]}), expected the same structure; "
            "pass both in containers of one structure"
        ) from e
    weights = flatten(kept)
    if len(weights.slots) != len(leaves.slots):
        raise ValueError(
            f"the number of leaves is {len(weights.slots)} in {name} and {len(leaves.slots)} in grads, expected one "
            "for each gradient; pass both in containers of one structure"
        )
    return leaves.firsts(weights.arrays)


def _check_shapes(leaves: Leaves, weights: Sequence[AnyArray]) -> None:
    _checks.lengths(leaves.arrays, leaves.array_paths)
    _checks.lengths(weights, lambda: [f"the parameter of {path}" for path in leaves.array_paths()])
    for i, (g, w) in enumerate(zip(leaves.arrays, weights, strict=True)):
        if tuple(g.shape) != tuple(w.shape):
            raise ValueError(
                f"{leaves.array_paths()[i]} has shape {tuple(g.shape)} and its parameter {tuple(w.shape)}, expected "
                "equal shapes; pass params in the same order as grads"
            )
