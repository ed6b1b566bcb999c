"""Clipping each example of a batch by its own norm, and adding up: the gradient step of private learning."""

from gradclip import _checks
from gradclip._per_example import clip_examples
from gradclip._types import Array, Scalar, Tree
from gradclip.backends.cupy._tree import flatten


def clip_per_example(grads: Tree, max_norm: Scalar | None) -> tuple[Tree, Array]:
    """Return the sum of the examples' gradients, each clipped by its global norm, and how many were clipped.

    Norms along axes are CuPy's reductions, several launches a leaf.

    Parameters
    ----------
    grads : array or container of arrays
        Gradients of shape ``(batch, ...)``: the leading axis of every leaf counts the examples. Not written to.
    max_norm : float, 0-d array or None
        The largest norm of an example's gradient, over all leaves, at least 0; None or inf for no clipping.

    Returns
    -------
    summed : container of arrays
        Of the structure, dtypes and devices of ``grads``, without the leading axis. Added up in float64.
    clipped : array
        0-d, int32, on the first leaf's device: the number of examples whose norm exceeded ``max_norm``.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `clip_by_global_norm_`; also if leaves have no leading axis or differ in its length.

    References
    ----------
    .. [1] M. Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, arXiv:1607.00133, Algorithm 1.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> clip_per_example([cupy.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.5]])], 1.0)  # doctest: +SKIP
    ([array([0.6, 1.3])], array(1, dtype=int32))
    """
    limit = _checks.threshold(max_norm, "max_norm")
    return clip_examples(flatten(grads), limit)
