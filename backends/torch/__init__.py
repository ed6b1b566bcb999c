"""Gradient clipping for PyTorch: the functions of ``torch.nn.utils`` made right and fast, and what goes beyond them."""

from gradclip.backends.torch._clip import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
]
