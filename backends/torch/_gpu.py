"""Whether the kernels in Triton can be used on a device, and why not."""

import warnings
from functools import cache
from types import ModuleType
from typing import Any

import torch

_DEVICES = {"cuda", "xpu"}  # AMD's GPUs are called cuda as well


def gpu_kernels(device: torch.device | str = "cuda") -> str:
    """Return what clips gradients on a device: "Triton", or PyTorch's own operations and why.

    Parameters
    ----------
    device : torch.device or str
        The device of the gradients.

    Examples
    --------
    >>> from gradclip.backends.torch import gpu_kernels
    >>> gpu_kernels("cpu")
    "PyTorch's own operations: there are kernels for cuda and xpu only"
    """
    found = _found(torch.device(device))
    return "Triton" if isinstance(found, ModuleType) else f"PyTorch's own operations: {found}"


@cache
def kernels_for(device: torch.device) -> Any:
    """Return the module of operations in Triton, or None where it cannot be used; that warns once for each GPU."""
    found = _found(device)
    if isinstance(found, ModuleType):
        return found
    if device.type in _DEVICES:
        message = (
            f"gradients on {device} are clipped by PyTorch's own operations, which write every gradient, for the "
            f"kernels in Triton cannot be used: {found}"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return None


@cache
def _found(device: torch.device) -> ModuleType | str:
    """Return the module of operations in Triton, or why it cannot be used on a device."""
    if device.type not in _DEVICES:
        return "there are kernels for cuda and xpu only"
    try:
        from gradclip.backends.torch.ops import _triton

        _triton.TritonOps().partial([torch.ones(1, device=device)], 2.0)
    except Exception as e:  # whatever Triton says: no such package, no compiler, a device that is too old
        return f"{type(e).__name__}: {e}"
    return _triton
