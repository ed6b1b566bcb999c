"""Keras 3: optimizers that clip gradients by their global norm, and the norm in Keras's own logs."""

from gradclip._elsewhere import Needs

with Needs("keras", "keras"):
    import keras  # noqa: F401  # an error says here how to install it

from gradclip.backends.keras._clipped import clipped
from gradclip.backends.keras._log import ClipLog

__all__ = ["ClipLog", "clipped"]
