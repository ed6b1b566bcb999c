"""Clipping by the global norm: one read, and a write only if the device finds that something is clipped."""

from typing import Any

from gradclip import _checks
from gradclip._decision import Rule
from gradclip._global import clip_leaves, clip_leaves_, clip_leaves_with, clip_leaves_with_
from gradclip._partial import NormPartial
from gradclip._types import Array, Nonfinite, Scalar, Tree
from gradclip.backends.cupy._tree import flatten


def clip_by_global_norm(
    grads: Tree,
    max_norm: Scalar | None,
    *,
    ord: float = 2.0,
    nonfinite: Nonfinite = "propagate",
    scale: Scalar = 1.0,
    eps: float = 0.0,
) -> tuple[Tree, Array]:
    r"""Return gradients whose norm is at most ``max_norm``, and the norm that they had.

    .. math:: g \leftarrow g \cdot \min\big(1, \tfrac{\text{max\_norm}}{\|g\| + \text{eps}}\big)

    Parameters
    ----------
    grads : array, parameter or container of these
        As for `clip_by_global_norm_`. Not written to.
    max_norm, ord, nonfinite, scale, eps
        As for `clip_by_global_norm_`.

    Returns
    -------
    clipped : container of arrays
        Of the structure, shapes, dtypes and devices of ``grads``, always new; with arrays where parameters stood.
    norm : array
        Before clipping: 0-d, on the first leaf's device, not read back.

    Raises
    ------
    RuntimeError, TypeError, ValueError, NonFiniteError
        As `clip_by_global_norm_`.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> clip_by_global_norm({"w": cupy.array([3.0]), "b": cupy.array([4.0])}, 1.0)  # doctest: +SKIP
    ({'w': array([0.6]), 'b': array([0.8])}, array(5.))
    """
    rule = Rule(max_norm, ord, nonfinite, scale, eps)
    clipped, decision = clip_leaves(flatten(grads), rule)
    return clipped, decision.norm


def clip_by_global_norm_(
    grads: Any,
    max_norm: Scalar | None,
    *,
    ord: float = 2.0,
    nonfinite: Nonfinite = "propagate",
    scale: Scalar = 1.0,
    eps: float = 0.0,
) -> Array:
    """Clip gradients by their global norm in place, and return the norm that they had.

    Three launches on the current stream for leaves of one dtype: partial norms, coefficient, scaling, whose blocks
    return at once where nothing is clipped. Nothing is read back.

    Parameters
    ----------
    grads : array, parameter or container of these
        Any nesting of list, tuple, NamedTuple, dict and dataclass of CuPy arrays, of arrays that come by DLPack, of
        objects with ``.grad`` (None for none), and of objects with ``namedparams()``. On any devices.
    max_norm : float, 0-d array or None
        The largest norm that is let through, at least 0. None or inf: no clipping, the norm only. 0: zeros.
    ord : float
        The order of the norm, greater than 0, or ``math.inf``.
    nonfinite : {"propagate", "error", "zero"}
        What becomes of gradients with NaN or inf: it spreads, NonFiniteError (this reads one flag back), or all
        leaves become zero, decided on the device.
    scale : float or 0-d array
        The loss scale by which the gradients are too large, greater than 0. They are divided by it in the same pass.
    eps : float
        Added to the norm in the denominator.

    Returns
    -------
    array
        The norm before clipping: 0-d, on the first leaf's device; float64 if any leaf is float64 or complex128, else
        float32. Not read back.

    Raises
    ------
    RuntimeError
        If CuPy is not installed, or finds no GPU.
    TypeError
        If a leaf is not an array of floating-point numbers on a GPU, or cannot be written, as JAX's cannot.
    ValueError
        If an argument is out of range, or leaves overlap in memory. Nothing was written then.
    NonFiniteError
        If a gradient is NaN or inf and ``nonfinite="error"``. Nothing was written then.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> g = cupy.array([3.0, 4.0])  # doctest: +SKIP
    >>> clip_by_global_norm_([g], 1.0)  # doctest: +SKIP
    array(5.)
    >>> g  # doctest: +SKIP
    array([0.6, 0.8])
    """
    rule = Rule(max_norm, ord, nonfinite, scale, eps)
    return clip_leaves_(flatten(grads), rule).norm


def clip_with_norm(grads: Tree, max_norm: Scalar | None, norm: Scalar | NormPartial) -> Tree:
    """Return gradients clipped by a norm that is known already: the second half of `clip_by_global_norm`.

    Parameters
    ----------
    grads : array, parameter or container of these
        As for `clip_by_global_norm_`. Not written to.
    max_norm : float, 0-d array or None
        The largest norm of the whole that is let through, at least 0; None or inf for no clipping.
    norm : float, 0-d array or NormPartial
        The norm of the whole.

    Returns
    -------
    container of arrays
        ``grads`` times min(1, max_norm / norm).

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `clip_by_global_norm_`; also if ``norm`` is negative.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> clip_with_norm(cupy.array([3.0]), 1.0, 5.0)  # doctest: +SKIP
    array([0.6])
    """
    limit, known = _checks.threshold(max_norm, "max_norm"), _checks.known_norm(norm)
    return clip_leaves_with(flatten(grads), limit, known)  # type: ignore[no-any-return]  # grads' own type


def clip_with_norm_(grads: Any, max_norm: Scalar | None, norm: Scalar | NormPartial) -> None:
    """Clip gradients in place by a norm that is known already: the second half of `clip_by_global_norm_`.

    Parameters
    ----------
    grads : array, parameter or container of these
        As for `clip_by_global_norm_`.
    max_norm, norm
        As for `clip_with_norm`.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `clip_by_global_norm_`; also if ``norm`` is negative. Nothing was written then.

    Examples
    --------
    >>> import cupy  # doctest: +SKIP
    >>> clip_with_norm_(cupy.array([3.0]), 1.0, 5.0)  # doctest: +SKIP
    """
    limit, known = _checks.threshold(max_norm, "max_norm"), _checks.known_norm(norm)
    clip_leaves_with_(flatten(grads), limit, known)
