"""Clipping each leaf by its own norm, or by its own root mean square."""

import math
from collections.abc import Sequence
from typing import Any

from gradclip import _checks
from gradclip import _namespace as ns
from gradclip._calls import remedies
from gradclip._coefficient import Coefficient, coefficient
from gradclip._containers import Containers
from gradclip._partial import NormPartial
from gradclip._tree import Leaves
from gradclip._types import AnyScalar, ArrayT, Scalar, Tree


class ByNorm(Containers[ArrayT]):
    """Clipping each leaf by its own norm, or by its own root mean square."""

    def clip_by_norm(self, grads: Tree, max_norm: Scalar | None, *, ord: float = 2.0) -> Tree:
        """Return gradients in which each leaf has a norm of at most ``max_norm``.

        Each leaf has its own coefficient, so that the direction of the step may change. `clip_by_global_norm` keeps it.
        The host waits for no accelerator.

        Parameters
        ----------
        grads : array or container of arrays
            As for `clip_by_global_norm`. Not written to.
        max_norm : float, 0-d array or None
            The threshold for the norm of each leaf, at least 0; None or inf: no clipping.
        ord : float
            The order of the norm, greater than 0, or ``math.inf``.

        Returns
        -------
        container of arrays
            Of the structure, shapes, dtypes and devices of ``grads``. Leaves that need no clipping are equal bit for
            bit.

        Raises
        ------
        TypeError
            If a leaf is not a floating-point array, or another argument is not a number.
        ValueError
            If ``max_norm`` is negative or NaN, or ``ord`` is not greater than 0.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> gradclip.clip_by_norm([np.array([3.0, 4.0]), np.array([0.1])], 1.0)
        [array([0.6, 0.8]), array([0.1])]
        """
        threshold, order = _checks.threshold(max_norm, "max_norm"), _checks.order(ord)
        clipped: Tree = clip_each(self.leaves(grads), threshold, order)
        return clipped

    def clip_by_norm_(self, grads: Any, max_norm: Scalar | None, *, ord: float = 2.0) -> None:
        """Clip each leaf by its own norm in place.

        Parameters
        ----------
        grads : writable array or container of arrays
            As for `clip_by_global_norm_`. On a host, leaves that need no clipping are not written.
        max_norm, ord
            As for `clip_by_norm`.

        Raises
        ------
        TypeError
            As for `clip_by_norm`; also if a leaf cannot be written.
        ValueError
            As for `clip_by_norm`; also if leaves overlap in memory. All errors are raised before the first write.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> g = [np.array([3.0, 4.0]), np.array([0.1])]
        >>> gradclip.clip_by_norm_(g, 1.0)
        >>> g
        [array([0.6, 0.8]), array([0.1])]
        """
        threshold, order = _checks.threshold(max_norm, "max_norm"), _checks.order(ord)
        clip_each_(self.leaves_(grads, "clip_by_norm_"), threshold, order, "clip_by_norm")

    @remedies(optax="clip_by_block_rms(threshold)")
    def clip_by_rms(self, grads: Tree, max_rms: Scalar | None) -> Tree:
        """Return gradients in which each leaf has a root mean square of at most ``max_rms``.

        The host waits for no accelerator.

        Parameters
        ----------
        grads : array or container of arrays
            As for `clip_by_global_norm`. Not written to.
        max_rms : float, 0-d array or None
            The threshold for the root mean square of each leaf, norm / sqrt(numel), at least 0; None or inf: no
            clipping.

        Returns
        -------
        container of arrays
            Of the structure, shapes, dtypes and devices of ``grads``. Leaves that need no clipping are equal bit for
            bit.

        Raises
        ------
        TypeError
            If a leaf is not a floating-point array, or ``max_rms`` is not a number.
        ValueError
            If ``max_rms`` is negative or NaN, or a leaf has axes of unknown lengths (Dask).

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
        threshold, leaves = _checks.threshold(max_rms, "max_rms"), self.leaves(grads)
        clipped: Tree = clip_each(leaves, threshold, 2.0, self.numels(leaves))
        return clipped

    def clip_by_rms_(self, grads: Any, max_rms: Scalar | None) -> None:
        """Clip each leaf by its own root mean square in place.

        Parameters
        ----------
        grads : writable array or container of arrays
            As for `clip_by_global_norm_`. On a host, leaves that need no clipping are not written.
        max_rms
            As for `clip_by_rms`.

        Raises
        ------
        TypeError
            As for `clip_by_rms`; also if a leaf cannot be written.
        ValueError
            As for `clip_by_rms`; also if leaves overlap in memory. All errors are raised before the first write.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> g = np.array([2.0, -2.0, 2.0, -2.0])
        >>> gradclip.clip_by_rms_(g, 1.0)
        >>> g
        array([ 1., -1.,  1., -1.])
        """
        threshold, leaves = _checks.threshold(max_rms, "max_rms"), self.leaves_(grads, "clip_by_rms_")
        clip_each_(leaves, threshold, 2.0, "clip_by_rms", self.numels(leaves))

    def numels(self, leaves: Leaves) -> list[int]:
        """Return the numel of each leaf, as `numels_of` does. An adapter overrides it if its leaves are parts."""
        return numels_of(leaves)


def clip_each(leaves: Leaves, threshold: AnyScalar | None, ord: float, numels: Sequence[int] | None = None) -> Any:
    """Return the container with each leaf clipped by its own norm: the algorithm, for any adapter's leaves.

    With ``numels``, as `numels_of` returns them, each leaf is clipped by the mean of its powers instead of their sum.
    """
    return leaves.scale(coefficients_of(leaves, threshold, ord, numels))


def clip_each_(
    leaves: Leaves, threshold: AnyScalar | None, ord: float, pure: str, numels: Sequence[int] | None = None
) -> None:
    """Clip each leaf by its own norm in place, as `clip_each` does. Adapters call it with their own leaves."""
    leaves.scale_(coefficients_of(leaves, threshold, ord, numels), pure)


def coefficients_of(
    leaves: Leaves, threshold: AnyScalar | None, ord: float, numels: Sequence[int] | None
) -> Sequence[Coefficient]:
    """Return the coefficient of each leaf; nothing is written."""
    if not leaves.arrays:
        return []
    return decide_each(leaves, threshold, ord, numels)[1].parts(floats=leaves.ops.readable)


def decide_each(
    leaves: Leaves, threshold: AnyScalar | None, ord: float, numels: Sequence[int] | None
) -> tuple[NormPartial, Coefficient]:
    """Return the norms and the coefficients of leaves, of which there is at least one; nothing is written."""
    batch = leaves.partials(ord)
    return batch, coefficient(batch if numels is None else _mean(batch, numels), threshold)


def numels_of(leaves: Leaves) -> list[int]:
    """Return the numel of each leaf, by which a mean is divided: 1 for an empty leaf."""
    _checks.lengths(leaves.arrays, leaves.array_paths)
    return [max(1, math.prod(x.shape)) for x in leaves.arrays]


def _mean(batch: NormPartial, numels: Sequence[int]) -> NormPartial:
    """Return norms of the mean of ``numels`` powers. A mean is in range where a threshold for the sum might not be."""
    xp = ns.namespace([batch.total])
    counts = xp.asarray([float(n) for n in numels], dtype=batch.total.dtype, device=ns.device(batch.total))
    return NormPartial(batch.scale, batch.total / counts, batch.ord, batch.dtype)
