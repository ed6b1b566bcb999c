"""Clipping each example of a batch by its own norm, and the sum over examples, as differentially private SGD needs."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

from gradclip import _checks
from gradclip import _namespace as ns
from gradclip._coefficient import Coefficient, coefficient
from gradclip._containers import Containers
from gradclip._partial import NormPartial
from gradclip._tree import Leaves
from gradclip._types import AnyArray, AnyScalar, ArrayT, Scalar, Tree


class PerExample(Containers[ArrayT]):
    """Clipping each example by its own norm."""

    def clip_per_example(self, grads: Tree, max_norm: Scalar | None) -> tuple[Tree, ArrayT]:
        """Return the sum of the examples' gradients, each clipped by its global norm, and how many were clipped.

        Parameters
        ----------
        grads : array or container of arrays
            Gradients of shape ``(batch, ...)``: the leading axis of every leaf has one index for each example. Not
            written to.
        max_norm : float, 0-d array or None
            The threshold for the norm of each example's gradient over all leaves, at least 0; None or inf: no clipping.

        Returns
        -------
        summed : container of arrays
            Of the structure, dtypes and devices of ``grads``, without the leading axis. Sums are computed in float32 or
            wider.
        clipped : array
            0-d, int32, on the first leaf's device: the number of examples whose norm exceeded ``max_norm``.

        Raises
        ------
        TypeError
            If a leaf is not a floating-point array, or ``max_norm`` is not a number.
        ValueError
            If leaves have no leading axis, differ in its length, or have axes of unknown lengths (Dask); or if
            ``max_norm`` is negative or NaN.

        References
        ----------
        .. [1] M. Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, arXiv:1607.00133, Algorithm 1.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> per_example = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.5]])
        >>> gradclip.clip_per_example([per_example], 1.0)
        ([array([0.6, 1.3])], array(1, dtype=int32))
        """
        threshold = _checks.threshold(max_norm, "max_norm")
        return clip_examples(self.leaves(grads), threshold)


def clip_examples(leaves: Leaves, threshold: AnyScalar | None) -> tuple[Any, AnyArray]:
    """Return the container of sums, and the number clipped. Adapters call it with their own leaves."""
    if not leaves.arrays:
        none = leaves.partial(2.0).total
        xp = ns.namespace([none])
        return leaves.restore([]), xp.zeros((), dtype=xp.int32, device=ns.device(none))
    check_batch(leaves)
    return _sums(leaves, threshold)


def _sums(leaves: Leaves, threshold: AnyScalar | None) -> tuple[Any, AnyArray]:
    ops = leaves.ops
    examples = [(x, tuple(range(1, x.ndim))) for x in map(_rows, leaves.arrays)]
    c = ops.coefficient_along(_of_examples, 1, examples, *([] if threshold is None else [threshold]))
    summed = [ops.scaled_sum(x, c.to(ns.device(x))) for x in leaves.arrays]
    xp = ns.namespace([c.changed])
    count = xp.sum(xp.astype(c.changed, xp.int32), dtype=xp.int32)  # a device may have no int64
    return leaves.restore(summed), ns.as_array(count)


def _rows(x: AnyArray) -> AnyArray:
    """Return a leaf with at least one axis besides that of the examples."""
    return x if x.ndim > 1 else x[:, None]


def _of_examples(parts: Sequence[NormPartial], threshold: AnyScalar | None = None) -> Coefficient:
    """Return the coefficients of the examples, of shape (batch,), from the partial norms of theirs in each leaf."""
    return coefficient(reduce(NormPartial.merge, map(_flat, parts)), threshold)


def _flat(part: NormPartial) -> NormPartial:
    """Return partial norms with the axis of the examples alone."""
    xp = ns.namespace([part.total])
    scale, total = (xp.reshape(values, (values.shape[0],)) for values in (part.scale, part.total))
    return NormPartial(scale, total, part.ord, part.dtype)


def check_batch(leaves: Leaves) -> None:
    """Check that the leading axes of leaves, of which there is at least one, have the same length."""
    _checks.lengths(leaves.arrays, leaves.array_paths)
    first = leaves.arrays[0]
    for i, x in enumerate(leaves.arrays):
        if x.ndim == 0 or x.shape[0] != (first.shape[0] if first.ndim else None):
            paths = leaves.array_paths()
            raise ValueError(
                f"{paths[i]} has shape {tuple(x.shape)} and {paths[0]} {tuple(first.shape)}, expected leaves whose "
                "leading axis counts the same examples; pass gradients of shape (batch, ...)"
            )
