"""Gradient clipping for PyTorch: the functions of ``torch.nn.utils``, those of the core, and hooks for optimizers."""

from gradclip._elsewhere import Needs
from gradclip._nonfinite import NonFiniteError
from gradclip._partial import NormPartial

with Needs("torch", "torch"):
    from gradclip.backends.torch._adaptive import adaptive_grad_clip_
    from gradclip.backends.torch._attach import attach
    from gradclip.backends.torch._clip import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
    from gradclip.backends.torch._explain import Explanation, explain, grad_norms
    from gradclip.backends.torch._functions import (
        Clipper,
        adaptive_grad_clip,
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
        clip_with_norm,
        clip_with_norm_,
        global_norm,
        leaf_norms,
        norm_partial,
    )
    from gradclip.backends.torch._gpu import gpu_kernels
    from gradclip.backends.torch._handle import Clipping
    from gradclip.backends.torch._hooks import BackwardClipping, clip_in_backward
    from gradclip.backends.torch._spikes import clip_spikes_

__all__ = [
    "BackwardClipping",
    "Clipper",
    "Clipping",
    "Explanation",
    "NonFiniteError",
    "NormPartial",
    "adaptive_grad_clip",
    "adaptive_grad_clip_",
    "attach",
    "clip_by_global_norm",
    "clip_by_global_norm_",
    "clip_by_norm",
    "clip_by_norm_",
    "clip_by_rms",
    "clip_by_rms_",
    "clip_by_value",
    "clip_by_value_",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "clip_in_backward",
    "clip_per_example",
    "clip_spikes",
    "clip_spikes_",
    "clip_with_norm",
    "clip_with_norm_",
    "explain",
    "get_total_norm",
    "global_norm",
    "gpu_kernels",
    "grad_norms",
    "leaf_norms",
    "norm_partial",
]
