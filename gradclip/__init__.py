"""Gradient clipping that is right, fast, and the same on every array framework.

Pure functions return new arrays and never touch their input; a trailing underscore means in place.
"""

from gradclip._adaptive import adaptive_grad_clip, adaptive_grad_clip_
from gradclip._by_norm import clip_by_norm, clip_by_norm_, clip_by_rms, clip_by_rms_
from gradclip._by_value import clip_by_value, clip_by_value_
from gradclip._global import clip_by_global_norm, clip_by_global_norm_, clip_with_norm, clip_with_norm_
from gradclip._norms import global_norm, leaf_norms, norm_partial
from gradclip._partial import NormPartial
from gradclip._per_example import clip_per_example

__all__ = [
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
    "clip_with_norm",
    "clip_with_norm_",
    "global_norm",
    "leaf_norms",
    "norm_partial",
]
