"""Gradient clipping that is right, fast, and the same on every array framework.

Pure functions return new arrays and never write to their input. Functions whose names end in ``_`` write in place.
"""

import sys
import typing

from gradclip import _elsewhere
from gradclip import policies as policies
from gradclip._clipper import Clipper
from gradclip._functions import (
    adaptive_grad_clip,
    adaptive_grad_clip_,
    clip_by_global_norm,
    clip_by_global_norm_,
    clip_by_norm,
    clip_by_norm_,
    clip_by_rms,
    clip_by_rms_,
    clip_by_value,
    clip_by_value_,
    clip_per_example,
    clip_spikes,
    clip_spikes_,
    clip_with_norm,
    clip_with_norm_,
    global_norm,
    leaf_norms,
    norm_partial,
)
from gradclip._nonfinite import NonFiniteError
from gradclip._partial import NormPartial
from gradclip._version import __version__ as __version__

__all__ = [
    "Clipper",
    "NonFiniteError",
    "NormPartial",
    "adaptive_grad_clip",
    "adaptive_grad_clip_",
    "clip_by_global_norm",
    "clip_by_global_norm_",
    "clip_by_norm",
    "clip_by_norm_",
    "clip_by_rms",
    "clip_by_rms_",
    "clip_by_value",
    "clip_by_value_",
    "clip_per_example",
    "clip_spikes",
    "clip_spikes_",
    "clip_with_norm",
    "clip_with_norm_",
    "global_norm",
    "leaf_norms",
    "norm_partial",
]

__path__.extend(_elsewhere.__path__)

if not typing.TYPE_CHECKING:  # a type checker would take this for a definition of every name

    def __getattr__(name: str) -> None:
        """Raise an error that says where a name is."""
        raise _elsewhere.missing(name, sys._getframe(1))
