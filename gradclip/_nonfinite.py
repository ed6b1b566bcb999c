"""Gradients that are NaN or inf: the check, and the one error that every adapter raises."""

from gradclip import _namespace as ns
from gradclip._tree import Leaves
from gradclip._types import Array


class NonFiniteError(FloatingPointError, RuntimeError):
    """A gradient is NaN or inf, and ``nonfinite="error"`` (``error_if_nonfinite=True``) was asked for.

    Raised by every adapter, before anything is written. It is a FloatingPointError, and a RuntimeError as PyTorch's
    functions raise it; its message begins as theirs, and then names the first such gradient.
    """


NonFiniteError.__module__ = "gradclip"  # the name that tracebacks show, and that pickles keep


def refuse_nonfinite(leaves: Leaves, finite: Array, ord: float) -> None:
    """Raise NonFiniteError if leaves are not all finite; this reads that flag back."""
    try:
        is_finite = bool(finite)
    except TypeError as e:  # a traced array has no value yet
        raise ValueError(
            'nonfinite="error" was asked for under tracing, where no value is known, expected "propagate" or "zero"; '
            'pass nonfinite="zero", or clip outside of the traced function'
        ) from e
    if not is_finite:
        raise NonFiniteError(f"{_SAID_BY_PYTORCH.format(ord)} {_nonfinite_leaves(leaves)}")


_SAID_BY_PYTORCH = "The total norm of order {} for gradients from `parameters` is non-finite, so it cannot be clipped."
"""How ``torch.nn.utils`` begins its error, which training scripts look for."""


def _nonfinite_leaves(leaves: Leaves) -> str:
    """Return which leaves have NaN or inf, and what to do."""
    totals = leaves.partials(2.0).total
    xp = ns.namespace([totals])
    bad = [path for i, path in enumerate(leaves.array_paths()) if not bool(xp.isfinite(totals[i, ...]))]
    first = bad[0] if bad else "A gradient on another rank"
    return (
        f"{first} is NaN or inf in some element (non-finite gradients: {len(bad)} of {len(leaves.arrays)}), expected "
        'finite gradients; nothing was written. Skip this step, or pass nonfinite="zero" in place of this check, to '
        "make its gradients zero"
    )
