"""Norms: of all leaves laid end to end, of each leaf, and as a partial that merges with others."""

from collections.abc import Sequence
from typing import Any

from gradclip import _checks, _dtypes
from gradclip import _namespace as ns
from gradclip._containers import Containers
from gradclip._partial import NormPartial
from gradclip._powers import root
from gradclip._tree import Leaves
from gradclip._types import AnyArray, ArrayT, Tree


class Norms(Containers[ArrayT]):
    """Norms and partial norms."""

    def global_norm(self, grads: Any, *, ord: float = 2.0) -> ArrayT:
        r"""Return the norm of all leaves laid end to end.

        .. math:: \|g\|_p = \Big(\sum_{\text{leaves}} \sum_i |g_i|^p\Big)^{1/p}

        Parameters
        ----------
        grads : array or container of arrays
            An array or any nesting of list, tuple, NamedTuple, dict and dataclass, with leaves of any shape and of any
            real or complex floating-point dtype. None leaves are left out. A leaf that is passed twice counts once.
        ord : float
            The order p, greater than 0, or ``math.inf`` for the largest absolute value.

        Returns
        -------
        array
            0-d, real, on the first leaf's device; float64 if any leaf is float64 or complex128, else float32. The
            relative error is at most 1e-6 (float64: 1e-14) at any size and magnitude. inf if the norm exceeds the
            dtype's range; 0 for an empty container. The host does not wait for it.

        Raises
        ------
        TypeError
            If a leaf is not a floating-point array (the message has its path), or ``ord`` is not a number.
        ValueError
            If ``ord`` is not greater than 0.

        References
        ----------
        .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
           arXiv:1211.5063: the average of this norm over many steps helps to choose the threshold.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> gradclip.global_norm({"w": np.array([[3.0], [0.0]]), "b": np.array([4.0])})
        array(5.)
        >>> gradclip.global_norm([np.full(4, 1e20, np.float32)])
        array(2.e+20, dtype=float32)
        """
        order = _checks.order(ord)
        norm: ArrayT = self.measured(grads, weights=True).partial(order).norm()
        return norm

    def leaf_norms(self, grads: Tree, *, ord: float = 2.0) -> Tree:
        """Return the norm of each leaf, in a container of the structure of ``grads``.

        Parameters
        ----------
        grads : array or container of arrays
            As for `global_norm`.
        ord : float
            The order of the norm, greater than 0, or ``math.inf``.

        Returns
        -------
        container of arrays
            0-d norms in place of the leaves, each on its leaf's device: float64 for float64 and complex128 leaves, else
            float32. The host does not wait for them.

        Raises
        ------
        TypeError
            If a leaf is not a floating-point array, or ``ord`` is not a number.
        ValueError
            If ``ord`` is not greater than 0.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> gradclip.leaf_norms({"w": np.array([3.0, 4.0]), "b": None, "c": np.zeros((0, 2))})
        {'w': array(5.), 'b': None, 'c': array(0.)}
        """
        order = _checks.order(ord)
        norms: Tree = norms_of(self.measured(grads, weights=True), order)
        return norms

    def norm_partial(self, grads: Any, *, ord: float = 2.0) -> NormPartial:
        """Return the partial norm of these gradients, which merges with the partial norms of others.

        Gradients may be in several places: on several ranks, in pipeline stages, or in batches one after the other. The
        norm of all is the norm of their merged partials. `clip_with_norm` then clips each part by it.

        Parameters
        ----------
        grads : array or container of arrays
            As for `global_norm`.
        ord : float
            The order of the norm, greater than 0, or ``math.inf``. Only partials of the same order can be merged.

        Returns
        -------
        NormPartial
            0-d, on the first leaf's device. The host does not wait for it.

        Raises
        ------
        TypeError
            If a leaf is not a floating-point array, or is a torch.nn.Parameter, which holds weights; or if ``ord`` is
            not a number.
        ValueError
            If ``ord`` is not greater than 0.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> first = gradclip.norm_partial([np.array([3.0])])
        >>> second = gradclip.norm_partial([np.array([4.0])])
        >>> first.merge(second).norm()
        array(5.)
        """
        order = _checks.order(ord)
        return self.measured(grads, weights=False).own_partial(order)


def norms_of(leaves: Leaves, ord: float) -> Any:
    """Return the container of the leaves' norms. Adapters call it with their own leaves."""
    if not leaves.arrays:
        return leaves.restore([])
    norms = _norms_of_batch(leaves.partials(ord), leaves.arrays)
    return leaves.restore(norms)


def _norms_of_batch(batch: NormPartial, leaves: Sequence[AnyArray]) -> list[AnyArray]:
    """Return the norm of each leaf, on the leaf's device and in the dtype of its norm."""
    xp = ns.namespace([batch.total])
    wide = batch.scale * root(xp, batch.total, batch.ord)
    return [
        ns.to_device(ns.as_array(xp.astype(wide[i, ...], _dtypes.norm_dtype(xp, x))), ns.device(x))
        for i, x in enumerate(leaves)
    ]
