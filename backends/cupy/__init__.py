"""Gradient clipping for CuPy: gradclip's functions on GPUs, in one launch for all leaves and without a synchronisation.

The functions are those of `gradclip`. They take nested containers of CuPy arrays, of arrays that come by DLPack from
PyTorch or JAX without a copy, and of parameters and links that hold gradients as Chainer's do. Importing this needs
neither CuPy nor a GPU; calling it does. What it does on a GPU, and what that costs, is in docs/gpu.md.
"""

from gradclip._nonfinite import NonFiniteError
from gradclip._partial import NormPartial
from gradclip.backends.cupy._functions import (
    Clipper,
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
from gradclip.backends.cupy._gpu import gpu_kernels

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
    "gpu_kernels",
    "leaf_norms",
    "norm_partial",
]
