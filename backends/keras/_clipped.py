"""`clipped`: a subclass of an optimizer class of Keras that clips gradients.

The subclasses of Keras's own optimizers are registered when this module is imported, so that saved models load.
"""
# Not installed where types are checked:
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from functools import cache
from typing import Any

import keras

from gradclip._words import kind
from gradclip.backends.keras._optimizer import ClippingOptimizer

BACKENDS = ("torch", "jax")
"""The backends of Keras whose tensors gradclip has operations for."""


def clipped(optimizer: type[Any]) -> type[Any]:
    """Return a subclass of an optimizer class of Keras that clips gradients before each step.

    Its constructor also takes the arguments below. Gradients are clipped where Keras clips them: after accumulation
    and without the loss scale. The policy's state is in ``optimizer.variables``, so that checkpoints have it.

    Parameters
    ----------
    optimizer : class
        `keras.optimizers.Adam`, another optimizer of Keras, or one of your own.

    Returns
    -------
    class
        A subclass of ``optimizer``, the same for each call. The constructor takes by name:

        - ``max_norm`` : float, Policy or None. The largest global norm, at least 0, or one of `gradclip.policies`;
          None: the norm is only measured.
        - ``max_value`` : float or None. Before the norm is computed, each element is clipped to
          ``[-max_value, max_value]``.
        - ``nonfinite`` : {"propagate", "zero"}. With "zero", all gradients become zero if one is NaN or inf.

        Once built, an instance has 0-d variables: ``grad_norm`` (of the last step, before clipping),
        ``clip_coefficient`` (what it was multiplied by; the smallest of all if there are several), ``clipped_steps``
        and ``skipped_steps`` (counts).

    Raises
    ------
    TypeError
        If ``optimizer`` is no optimizer class of Keras, or has an ``apply`` of its own, as wrappers do.
    RuntimeError
        If Keras's backend is not "torch" or "jax".
    ValueError
        From the constructor: if an argument is out of its range, or one of Keras's own clipping arguments is given.

    Examples
    --------
    >>> import os
    >>> os.environ["KERAS_BACKEND"] = "torch"
    >>> import keras
    >>> from gradclip.backends.keras import clipped
    >>> optimizer = clipped(keras.optimizers.SGD)(learning_rate=1.0, max_norm=1.0)
    >>> weight = keras.Variable([0.0, 0.0])
    >>> optimizer.apply([keras.ops.array([3.0, 4.0])], [weight])
    >>> weight.numpy(), float(optimizer.grad_norm), int(optimizer.clipped_steps)
    (array([-0.6, -0.8], dtype=float32), 5.0, 1)
    """
    if keras.backend.backend() not in BACKENDS:
        raise RuntimeError(
            f"Keras's backend is {keras.backend.backend()!r}, expected 'torch' or 'jax': gradclip has no operations "
            "for its tensors; pass global_clipnorm= to Keras's own optimizer"
        )
    if not isinstance(optimizer, type) or not issubclass(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            f"optimizer is {kind(optimizer)}, expected an optimizer class of Keras; write "
            "clipped(keras.optimizers.Adam)(learning_rate=..., max_norm=...)"
        )
    if issubclass(optimizer, ClippingOptimizer):
        return optimizer
    if not _clips_where_keras_does(optimizer):
        raise TypeError(
            f"{optimizer.__name__} has an apply() of its own, which does not clip, expected an optimizer that it "
            f"wraps; write {optimizer.__name__}(clipped(keras.optimizers.Adam)(max_norm=...))"
        )
    return _subclass(optimizer)  # type: ignore[arg-type]  # any class is hashable


@cache
def _subclass(optimizer: Any) -> type[Any]:
    """Return a registered subclass of an optimizer class."""
    own = optimizer.__module__.startswith("keras.")
    base = type(optimizer.__new__(optimizer))  # in PyTorch, the class that updates all variables together
    doc = f"`{optimizer.__name__}` with clipping; see `gradclip.backends.keras.clipped`."
    made = type(
        f"Clipped{optimizer.__name__}",
        (ClippingOptimizer, base),
        {"__doc__": doc, "__module__": "gradclip.backends.keras"},
    )
    register = keras.saving.register_keras_serializable("gradclip" if own else f"gradclip.{optimizer.__module__}")
    registered: type[Any] = register(made)
    return registered


def _clips_where_keras_does(optimizer: type[Any]) -> bool:
    """Whether an optimizer class takes its steps by Keras's own ``apply``, which clips; wrappers do not."""
    return bool(optimizer.apply is keras.optimizers.Optimizer.apply)


def _register_all() -> None:
    """Register the subclasses of Keras's own optimizers."""
    for found in list(vars(keras.optimizers).values()):
        if isinstance(found, type) and issubclass(found, keras.optimizers.Optimizer) and _clips_where_keras_does(found):
            clipped(found)


if keras.backend.backend() in BACKENDS:
    _register_all()
