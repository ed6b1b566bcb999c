"""The check for NaN and inf, and the error that the core and every adapter raise for them."""

from gradclip._tree import Leaves
from gradclip._types import AnyArray


class NonFiniteError(FloatingPointError, RuntimeError):
    """A gradient is NaN or inf, and ``nonfinite="error"`` (in PyTorch, ``error_if_nonfinite=True``) was passed.

    It is raised before anything is written. It is a FloatingPointError, and also a RuntimeError, which PyTorch's
    functions raise. Its message begins with PyTorch's words, and then names the first such gradient.
    """


NonFiniteError.__module__ = "gradclip"  # the name that tracebacks show, and that pickles keep


def refuse_nonfinite(leaves: Leaves, finite: AnyArray, ord: float) -> None:
    """Raise NonFiniteError if ``finite`` is False; this reads one flag back from the device."""
    try:
        is_finite = bool(finite)
    except (TypeError, ValueError) as e:  # a traced array has no value yet, as JAX and MLX say
        raise ValueError(
            'nonfinite="error" was asked for under tracing, where no value is known, expected "propagate" or "zero"; '
            'pass nonfinite="zero", or clip outside of the traced function'
        ) from e
    if not is_finite:
        raise NonFiniteError(f"{_SAID_BY_PYTORCH.format(ord)} {_nonfinite_leaves(leaves)}")


_SAID_BY_PYTORCH = "The total norm of order {} for gradients from `parameters` is non-finite, so it cannot be clipped."
"""The first sentence of the error of ``torch.nn.utils``, which training scripts search for."""


def _nonfinite_leaves(leaves: Leaves) -> str:
    """Return the part of the message that says which leaves have NaN or inf, and what to do."""
    bad = leaves.nonfinite()
    first, where = bad[0] if bad else ("A gradient on another rank", "")
    return (
        f"{first} is NaN or inf in some element{where} (non-finite gradients: {len(bad)} of {len(leaves.arrays)}), "
        'expected finite gradients; nothing was written. Skip this step, or pass nonfinite="zero" in place of this '
        "check, to make its gradients zero"
    )
