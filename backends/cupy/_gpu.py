"""Choice of the kernels for a GPU: gradclip's CUDA kernels if they work there, else CuPy's own operations."""

import warnings
from collections.abc import Iterable
from functools import cache

from gradclip.backends.cupy import _runtime


def gpu_kernels(device: int = 0) -> str:
    """Return what clips arrays on a GPU: gradclip's CUDA kernels, or CuPy's own operations and the reason.

    Parameters
    ----------
    device : int
        The number of the GPU.

    Returns
    -------
    str
        "CUDA", or "CuPy's own operations: " and why the CUDA kernels cannot be used. The first call for a GPU compiles
        a kernel.

    Raises
    ------
    RuntimeError
        If CuPy is not installed, or finds no GPU.

    Examples
    --------
    >>> from gradclip.backends.cupy import gpu_kernels
    >>> gpu_kernels()  # doctest: +SKIP
    'CUDA'
    """
    reason = _runtime.runtime().refusal(device)
    return "CUDA" if reason is None else f"CuPy's own operations: {reason}"


def kernels_work(runtime: _runtime.Runtime, devices: Iterable[int]) -> bool:
    """Whether the CUDA kernels can be used on these GPUs. If not, a warning says why, once for each GPU."""
    refused = [(device, reason) for device in devices if (reason := runtime.refusal(device)) is not None]
    for device, reason in refused:
        _warn(device, reason)
    return not refused


@cache
def _warn(device: int, reason: str) -> None:
    message = (
        f"arrays on GPU {device} are clipped by CuPy's own operations, in several launches for each array, for "
        f"gradclip's CUDA kernels cannot be used: {reason}"
    )
    warnings.warn(message, RuntimeWarning, stacklevel=2)
