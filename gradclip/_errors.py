"""The type of error that is this library's own."""


class NonFiniteError(FloatingPointError, RuntimeError):
    """A gradient is NaN or inf, and ``nonfinite="error"`` (``error_if_nonfinite=True``) was asked for.

    Raised by every adapter, before anything is written. It is a FloatingPointError, and a RuntimeError as PyTorch's
    functions raise it; its message begins as theirs, and then names the first such gradient.
    """


NonFiniteError.__module__ = "gradclip"  # the name that tracebacks show, and that pickles keep
