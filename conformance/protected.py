"""Clips in place in memory that is write-protected. It runs in its own process, because a write would end it."""

import contextlib
import ctypes
import faulthandler
import mmap
from typing import Any

import numpy as np
import pytest

from gradclip.conformance.helpers import IN_PLACE
from gradclip.conformance.targets import Target, load
from gradclip.conformance.values import normal

PAGE = mmap.PAGESIZE


def protect(memory: mmap.mmap) -> None:
    """Write-protect pages of memory. Arrays in them still say that they are writable."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(address), len(memory), mmap.PROT_READ):
        raise OSError(ctypes.get_errno(), "mprotect")


def leaf(target: Target, dtype: str) -> tuple[Any, mmap.mmap]:
    """Return an array of a target in its own pages of memory."""
    narrow = target.read(target.make(normal(257, dtype), dtype))
    numpy_dtype = load("ml_dtypes").bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    memory = mmap.mmap(-1, PAGE * -(-257 * numpy_dtype.itemsize // PAGE))
    held = np.frombuffer(memory, numpy_dtype, 257)
    held[:] = narrow.astype(numpy_dtype)
    return target.share(held), memory


def main(target: Target, dtype: str, function: str, limit: str) -> None:
    """Clip protected leaves of one dtype or of all dtypes, by one function or by all that use a norm."""
    dtypes = [d for d in target.dtypes if d != "bfloat16"] if dtype == "all" else [dtype]
    for each in IN_PLACE.keys() - {"clip_by_value_"} if function == "all" else [function]:
        for some in dtypes:
            with contextlib.suppress(pytest.skip.Exception):  # an adapter may offer less
                _clip(target, some, each, float(limit))


def _clip(target: Target, dtype: str, function: str, limit: float) -> None:
    faulthandler.disable()
    x, memory = leaf(target, dtype)
    protect(memory)
    IN_PLACE[function](target.api, [x], limit)
