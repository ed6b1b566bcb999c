"""Gradient clipping for PyTorch: the functions of ``torch.nn.utils`` made right and fast, and what goes beyond them."""

from gradclip._elsewhere import Needs
from gradclip._nonfinite import NonFiniteError

with Needs("torch", "torch"):
    from gradclip.backends.torch._adaptive import adaptive_grad_clip_
    from gradclip.backends.torch._attach import attach
    from gradclip.backends.torch._clip import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
    from gradclip.backends.torch._explain import Explanation, explain, grad_norms
    from gradclip.backends.torch._gpu import gpu_kernels
    from gradclip.backends.torch._handle import Clipping
    from gradclip.backends.torch._hooks import BackwardClipping, clip_in_backward

__all__ = [
    "BackwardClipping",
    "Clipping",
    "Explanation",
    "NonFiniteError",
    "adaptive_grad_clip_",
    "attach",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "clip_in_backward",
    "explain",
    "get_total_norm",
    "gpu_kernels",
    "grad_norms",
]
