"""Choice of the kernels for a device: Triton's if they work there, else PyTorch's own operations."""

import warnings
from functools import cache
from types import ModuleType
from typing import Any

import torch

_DEVICES = {"cuda", "xpu"}  # PyTorch calls AMD's GPUs cuda, too


def gpu_kernels(device: torch.device | str = "cuda") -> str:
    """Return what clips gradients on a device: Triton's kernels, or PyTorch's own operations and the reason.

    Parameters
    ----------
    device : torch.device or str
        The device of the gradients.

    Returns
    -------
    str
        "Triton", or "PyTorch's own operations: " and why the kernels in Triton cannot be used. The first call for a GPU
        compiles and runs a kernel there.

    Raises
    ------
    RuntimeError
        If ``device`` is a string that names no device.

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
    """Return the module of operations in Triton, or None if it cannot be used; that warns once for each GPU."""
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
    except Exception as e:  # Triton raises errors of many types: no package, no compiler, a device too old
        return f"{type(e).__name__}: {e}"
    return _triton
