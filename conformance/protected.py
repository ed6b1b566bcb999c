"""Clips in place in memory that nobody can write: a process of its own, for a write ends it."""

import ctypes
import faulthandler
import mmap
from typing import Any

import numpy as np

from conformance import frameworks
from conformance.helpers import IN_PLACE
from conformance.targets import Target, load
from conformance.values import normal

PAGE = mmap.PAGESIZE


def protect(memory: mmap.mmap) -> None:
    """Take the right to write to pages from the whole process; their arrays still say that they are writable."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(address), len(memory), mmap.PROT_READ):
        raise OSError(ctypes.get_errno(), "mprotect")


def leaf(target: Target, dtype: str) -> tuple[Any, mmap.mmap]:
    """Return an array of a target in pages of its own."""
    narrow = target.read(target.make(normal(257, dtype), dtype))
    numpy_dtype = load("ml_dtypes").bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    memory = mmap.mmap(-1, PAGE * -(-257 * numpy_dtype.itemsize // PAGE))
    held = np.frombuffer(memory, numpy_dtype, 257)
    held[:] = narrow.astype(numpy_dtype)
    return target.share(held), memory


def main(name: str, api: str, dtype: str, function: str, limit: str) -> None:
    """Clip protected leaves of one dtype or of all by one function or by all that go by a norm."""
    faulthandler.disable()
    target = next(t for t in frameworks.targets_of(name.partition("[")[0], load(api)) if t.name == name)
    with target.active():
        dtypes = [d for d in target.dtypes if d != "bfloat16"] if dtype == "all" else [dtype]
        for each in IN_PLACE.keys() - {"clip_by_value_"} if function == "all" else [function]:
            for some in dtypes:
                x, memory = leaf(target, some)
                protect(memory)
                IN_PLACE[each](target.api, [x], float(limit))
