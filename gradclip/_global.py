"""Clipping by the global norm: one coefficient for all leaves, so that the direction of the step stays."""

from typing import Any

import numpy as np

from gradclip import _checks
from gradclip import _namespace as ns
from gradclip._calls import remedies
from gradclip._coefficient import Coefficient, coefficient
from gradclip._containers import Containers
from gradclip._decision import Decision, Rule
from gradclip._nonfinite import refuse_nonfinite
from gradclip._partial import NormPartial, from_norm
from gradclip._tree import Leaves
from gradclip._types import AnyArray, AnyScalar, ArrayT, Nonfinite, Scalar, Tree


class ByGlobalNorm(Containers[ArrayT]):
    """Clipping by the global norm, and by a norm that is known already."""

    @remedies(optax="clip_by_global_norm(max_norm)")
    def clip_by_global_norm(
        self,
        grads: Tree,
        max_norm: Scalar | None,
        *,
        ord: float = 2.0,
        nonfinite: Nonfinite = "propagate",
        scale: Scalar = 1.0,
        eps: float = 0.0,
    ) -> tuple[Tree, ArrayT]:
        r"""Return gradients whose norm is at most ``max_norm``, and the norm that they had.

        .. math:: g \leftarrow g \cdot \min\big(1, \tfrac{\text{max\_norm}}{\|g\| + \text{eps}}\big)

        Parameters
        ----------
        grads : array or container of arrays
            An array or any nesting of list, tuple, NamedTuple, dict and dataclass, with leaves of any shape and of any
            real or complex floating-point dtype. Not written to.
        max_norm : float, 0-d array or None
            The largest norm that is let through, at least 0. None or inf: no clipping, the norm only. 0: zeros.
        ord : float
            The order of the norm, greater than 0, or ``math.inf``.
        nonfinite : {"propagate", "error", "zero"}
            What becomes of gradients with NaN or inf. "propagate": NaN in one element becomes NaN in all, inf becomes
            NaN and finite elements 0. "error": NonFiniteError; this reads one flag back from the device. "zero": all
            leaves become zero, decided on the device: the step is lost, but not the model. The norm is NaN or inf all
            the same.
        scale : float or 0-d array
            The loss scale by which the gradients are too large, greater than 0. They are divided by it in the same
            pass, and ``max_norm`` and the norm are those of the unscaled gradients.
        eps : float
            Added to the norm in the denominator, for results equal to those of libraries that do so (PyTorch: 1e-6).

        Returns
        -------
        clipped : container of arrays
            Of the structure, shapes, dtypes and devices of ``grads``. The leaves are multiplied in float32 or wider and
            rounded once. Where nothing is clipped they are ``grads``' bit for bit, and on a host its very arrays.
        norm : array
            As `global_norm` returns it: before clipping, 0-d, not read back from an accelerator.

        Raises
        ------
        TypeError
            If a leaf is not a floating-point array, or an argument not a number.
        ValueError
            If ``max_norm`` is negative or NaN, ``ord`` or ``scale`` not greater than 0, ``eps`` negative, or
            ``nonfinite`` an unknown name.
        NonFiniteError
            If a gradient is NaN or inf and ``nonfinite="error"``: a FloatingPointError and a RuntimeError.

        References
        ----------
        .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
           arXiv:1211.5063, Algorithm 1.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> clipped, norm = gradclip.clip_by_global_norm({"w": np.array([3.0]), "b": np.array([4.0])}, 1.0)
        >>> clipped, norm
        ({'w': array([0.6]), 'b': array([0.8])}, array(5.))

        A norm far beyond float32's squares is clipped as well:

        >>> clipped, norm = gradclip.clip_by_global_norm(np.float32([3e20, 4e20]), 1.0)
        >>> clipped.round(6), norm
        (array([0.6, 0.8], dtype=float32), array(5.e+20, dtype=float32))
        """
        rule = Rule(max_norm, ord, nonfinite, scale, eps)
        clipped, decision = clip_leaves(self.leaves(grads), rule)
        return clipped, decision.norm

    def clip_by_global_norm_(
        self,
        grads: Any,
        max_norm: Scalar | None,
        *,
        ord: float = 2.0,
        nonfinite: Nonfinite = "propagate",
        scale: Scalar = 1.0,
        eps: float = 0.0,
    ) -> ArrayT:
        """Clip gradients by their global norm in place, and return the norm that they had.

        On a host, gradients that need no clipping are not written to. Storage, views and strides stay.

        Parameters
        ----------
        grads : writable array or container of arrays
            As for `clip_by_global_norm`; distinct leaves must not overlap in memory.
        max_norm, ord, nonfinite, scale, eps
            As for `clip_by_global_norm`.

        Returns
        -------
        array
            The norm before clipping: 0-d, not read back from an accelerator.

        Raises
        ------
        TypeError
            If a leaf is not a floating-point array, or cannot be written: JAX arrays, read-only NumPy arrays.
        ValueError
            As `clip_by_global_norm`; also if leaves overlap in memory.
        NonFiniteError
            If a gradient is NaN or inf and ``nonfinite="error"``: a FloatingPointError and a RuntimeError. Whatever
            is raised, nothing was written.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> g = np.array([3.0, 4.0])
        >>> gradclip.clip_by_global_norm_([g], 1.0)
        array(5.)
        >>> g
        array([0.6, 0.8])
        """
        rule = Rule(max_norm, ord, nonfinite, scale, eps)
        norm: ArrayT = clip_leaves_(self.leaves_(grads, "clip_by_global_norm_"), rule).norm
        return norm

    def clip_with_norm(self, grads: Tree, max_norm: Scalar | None, norm: Scalar | NormPartial) -> Tree:
        """Return gradients clipped by a norm that is known already: the second half of `clip_by_global_norm`.

        For gradients that are a part of a whole, whose norm was reduced elsewhere (see `norm_partial`).

        Parameters
        ----------
        grads : array or container of arrays
            As for `clip_by_global_norm`. Not written to.
        max_norm : float, 0-d array or None
            The largest norm of the whole that is let through, at least 0; None or inf for no clipping.
        norm : float, 0-d array or NormPartial
            The norm of the whole. A NormPartial is right even where its norm overflows.

        Returns
        -------
        container of arrays
            ``grads`` times min(1, max_norm / norm).

        Raises
        ------
        TypeError
            If a leaf is not a floating-point array, or an argument not a number.
        ValueError
            If ``max_norm`` is negative or NaN, or ``norm`` negative.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> here, elsewhere = np.array([3.0]), np.array([4.0])
        >>> whole = gradclip.norm_partial(here).merge(gradclip.norm_partial(elsewhere))
        >>> gradclip.clip_with_norm(here, 1.0, whole)
        array([0.6])
        """
        threshold, known = _checks.threshold(max_norm, "max_norm"), _checks.known_norm(norm)
        clipped: Tree = clip_leaves_with(self.leaves(grads), threshold, known)
        return clipped

    def clip_with_norm_(self, grads: Any, max_norm: Scalar | None, norm: Scalar | NormPartial) -> None:
        """Clip gradients in place by a norm that is known already: the second half of `clip_by_global_norm_`.

        Parameters
        ----------
        grads : writable array or container of arrays
            As for `clip_by_global_norm_`.
        max_norm, norm
            As for `clip_with_norm`.

        Raises
        ------
        TypeError
            If a leaf is not a floating-point array or cannot be written, or an argument is not a number.
        ValueError
            If ``max_norm`` is negative or NaN, ``norm`` negative, or leaves overlap. Nothing was written then.

        Examples
        --------
        >>> import numpy as np, gradclip
        >>> g = np.array([3.0, 4.0])
        >>> gradclip.clip_with_norm_(g, 1.0, 10.0)
        >>> g
        array([0.3, 0.4])
        """
        threshold, known = _checks.threshold(max_norm, "max_norm"), _checks.known_norm(norm)
        clip_leaves_with_(self.leaves_(grads, "clip_with_norm_"), threshold, known)


def clip_leaves(leaves: Leaves, rule: Rule) -> tuple[Any, Decision]:
    """Return the container of clipped leaves, and what was decided: the algorithm, for any adapter's leaves."""
    decision = decide(leaves, rule)
    return leaves.scale([decision.coefficient] * len(leaves.arrays)), decision


def clip_leaves_(leaves: Leaves, rule: Rule) -> Decision:
    """Clip leaves in place and return what was decided: the algorithm, for any adapter's leaves."""
    decision = decide(leaves, rule)
    leaves.scale_([decision.coefficient] * len(leaves.arrays), "clip_by_global_norm")
    return decision


def decide(leaves: Leaves, rule: Rule) -> Decision:
    """Return what is done with leaves, or refuse them; nothing is written."""
    decision = leaves.decide(rule)
    if rule.nonfinite == "error":
        refuse_nonfinite(leaves, decision.finite, rule.ord)
    return decision


def clip_leaves_with(leaves: Leaves, max_norm: AnyScalar | None, norm: AnyScalar | NormPartial) -> Any:
    """Return the container of leaves clipped by a known norm: the algorithm, for any adapter's leaves."""
    return leaves.scale(_known_coefficients(leaves, max_norm, norm))


def clip_leaves_with_(leaves: Leaves, max_norm: AnyScalar | None, norm: AnyScalar | NormPartial) -> None:
    """Clip leaves by a known norm in place: the algorithm, for any adapter's leaves."""
    leaves.scale_(_known_coefficients(leaves, max_norm, norm), "clip_with_norm")


@np.errstate(all="ignore")
def _known_coefficients(leaves: Leaves, max_norm: AnyScalar | None, norm: AnyScalar | NormPartial) -> list[Coefficient]:
    """Return what each leaf is multiplied by for a known norm: one coefficient for all."""
    if not leaves.arrays:
        return []
    return [coefficient(_known_partial(leaves.arrays[0], norm), max_norm)] * len(leaves.arrays)


def _known_partial(first: AnyArray, norm: AnyScalar | NormPartial) -> NormPartial:
    if isinstance(norm, NormPartial):
        return norm
    xp = ns.namespace([first])
    where, wide = ns.device(first), ns.wide_dtype(xp, first)
    if isinstance(norm, float):
        return from_norm(xp, xp.full((), norm, dtype=wide, device=where))
    return from_norm(xp, ns.to_device(xp.astype(norm, wide), where))
