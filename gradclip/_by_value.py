"""Clipping by value: each element is limited to an interval."""

from typing import Any

from gradclip import _checks
from gradclip import _namespace as ns
from gradclip._calls import remedies
from gradclip._containers import Containers
from gradclip._tree import Leaves
from gradclip._types import AnyScalar, ArrayT, Scalar, Tree


class ByValue(Containers[ArrayT]):
    """Clipping by value."""

    @remedies(
        optax="clip(max_delta)",
        by_name="clip_by_value(grads, min_value=-1.0, max_value=1.0)",
    )
    def clip_by_value(self, grads: Tree, max_value: Scalar, *, min_value: Scalar | None = None) -> Tree:
        """Return gradients with each element clipped to ``[-max_value, max_value]``.

        The host waits for no accelerator.

        Parameters
        ----------
        grads : array or container of arrays
            As for `clip_by_global_norm`, of real dtypes. Not written to.
        max_value : float or 0-d array
            The upper bound, at least 0 unless ``min_value`` is given; inf: no bound. It is rounded to each leaf's
            dtype; a finite bound beyond the dtype's range becomes its largest finite number.
        min_value : float, 0-d array or None
            The lower bound, -``max_value`` by default.

        Returns
        -------
        container of arrays
            Of the structure, shapes, dtypes and devices of ``grads``. NaN stays NaN, ±inf becomes the bounds.

        Raises
        ------
        TypeError
            If a leaf is complex or not a floating-point array, or a bound is not a number.
        ValueError
            If a bound is NaN, ``max_value`` is negative without ``min_value``, or ``min_value`` exceeds ``max_value``.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> gradclip.clip_by_value([np.array([-3.0, 0.5, np.inf])], 1.0)
        [array([-1. ,  0.5,  1. ])]
        """
        low, high = _checks.bounds(max_value, min_value)
        clipped: Tree = clamp_leaves(self.leaves(grads), low, high)
        return clipped

    @remedies(by_name="clip_by_value_(grads, min_value=-1.0, max_value=1.0)")
    def clip_by_value_(self, grads: Any, max_value: Scalar, *, min_value: Scalar | None = None) -> None:
        """Clip each element to ``[-max_value, max_value]`` in place.

        Parameters
        ----------
        grads : writable array or container of arrays
            As for `clip_by_global_norm_`, of real dtypes.
        max_value, min_value
            As for `clip_by_value`.

        Raises
        ------
        TypeError
            As for `clip_by_value`; also if a leaf cannot be written.
        ValueError
            As for `clip_by_value`; also if leaves overlap in memory. All errors are raised before the first write.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> g = np.array([-3.0, 0.5, 2.0])
        >>> gradclip.clip_by_value_(g, 1.0)
        >>> g
        array([-1. ,  0.5,  1. ])
        """
        low, high = _checks.bounds(max_value, min_value)
        clamp_leaves_(self.leaves_(grads, "clip_by_value_"), low, high)


def clamp_leaves(leaves: Leaves, low: AnyScalar, high: AnyScalar) -> Any:
    """Return the container of clamped leaves. Adapters call it with their own leaves."""
    check_real(leaves)
    return leaves.clamp(*ordered(low, high))


def clamp_leaves_(leaves: Leaves, low: AnyScalar, high: AnyScalar) -> None:
    """Clamp leaves in place. Adapters call it with their own leaves."""
    check_real(leaves)
    leaves.clamp_(*ordered(low, high))


def ordered(low: AnyScalar, high: AnyScalar) -> tuple[AnyScalar, AnyScalar]:
    """Return the bounds. If ``low`` exceeds ``high``, a positive ``low`` and a negative ``high`` become 0.

    The checks refuse such bounds, but they do not read the values of arrays. With 0, no element changes its sign.
    """
    arrays = [bound for bound in (low, high) if not isinstance(bound, float)]
    if not arrays:
        return low, high
    xp = ns.namespace(arrays)
    wide = ns.wide_dtype(xp, arrays[0])
    low, high = (
        xp.full_like(arrays[0], bound, dtype=wide) if isinstance(bound, float) else xp.astype(bound, wide)
        for bound in (low, high)
    )
    zero, crossed = xp.zeros_like(low), low > high
    return xp.where(crossed & (low > 0), zero, low), xp.where(crossed & (high < 0), zero, high)


def check_real(leaves: Leaves) -> None:
    """Raise TypeError if a leaf is complex."""
    for i, x in enumerate(leaves.arrays):
        _checks.not_complex(x, leaves.array_paths, i)
