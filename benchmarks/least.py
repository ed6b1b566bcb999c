"""The least Python that clips safely with our kernels: what a call in Python cannot be faster than.

Both functions take a list of arrays, look at nothing but what a wrong result or a crash would follow from, and refuse
what our functions handle: other containers, layouts, tied or overlapping arrays, non-finite norms, other options.
"""

import ctypes
import math
import sys
from functools import cache
from operator import attrgetter
from typing import Any

import numpy as np

from benchmarks.sets import NDArray
from gradclip import _native
from gradclip._native import Table, Threads

NAME = "the least Python that is safe"

_from_buffer: Any = (ctypes.c_char * 0).from_buffer
_nbytes, _dtype = attrgetter("nbytes"), attrgetter("dtype")


def clip_arrays_(grads: list[NDArray], most: float) -> float:
    """Clip NumPy arrays in place by their global norm, and return it."""
    if set(map(type, grads)) != {np.ndarray} or len(dtypes := set(map(_dtype, grads))) > 1:
        raise TypeError("expected arrays of one dtype")
    code = bytes([_native.CODES[dtypes.pop().name]])
    addresses = list(map(ctypes.addressof, map(_from_buffer, grads)))  # raises if one is read-only or has gaps
    return _clip_(Table(addresses, list(map(_nbytes, grads)), code * len(grads)), most, _native.threads())


def clip_tensors_(params: list[Any], most: float) -> Any:
    """Clip the gradients of PyTorch's parameters in place by their global norm, and return it."""
    import torch

    grads = [g for p in params if (g := p.grad) is not None]
    if set(map(type, grads)) != {torch.Tensor}:
        raise TypeError("expected plain tensors")
    found = _kernels().locate(_find(), grads)
    if found is None:
        raise TypeError("expected contiguous tensors in the host's memory")
    if len(set(found[0].addresses)) < len(grads):
        raise ValueError("expected tensors that are not tied")
    norm = _clip_(found[0], most, Threads(torch.get_num_threads(), _team()), lambda: _written(grads))
    return torch.scalar_tensor(norm)


def _clip_(table: Table, most: float, threads: Threads, written: Any = None) -> float:
    kernels = _kernels()
    norm = math.sqrt(kernels.sum(table, 2.0, threads))
    if not norm <= most:
        if not kernels.apart(table):
            raise ValueError("expected arrays that do not overlap")
        if written is not None:
            written()
        kernels.scale(table, (most / norm,), (1.0,), threads, table)
    return norm


def _written(grads: list[Any]) -> None:
    """Count up the versions that autograd reads; refuse tensors of inference mode."""
    import torch

    if any(map(torch.Tensor.is_inference, grads)):
        raise ValueError("expected no tensors of inference mode")
    torch.autograd.graph.increment_version(grads)


def _kernels() -> _native.Kernels:
    kernels = _native.kernels()
    if kernels is None:
        raise RuntimeError(f"no kernels: {_native.status()}")
    return kernels


@cache
def _find() -> int:
    import torch

    from gradclip._dlpack_finder import finder

    found = finder(torch.Tensor)
    if found is None:
        raise RuntimeError("this PyTorch has no DLPack exchange API")
    return found


def _team() -> int:
    return _native.team_in(sys.modules["torch._C"].__file__)
