"""The kernels on the CPU: compiled with the shim, called by the adapter's own operations on NumPy's arrays."""

import ctypes
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gradclip import _namespace as ns
from gradclip._tree import Leaves
from gradclip.backends.cupy import _table
from gradclip.backends.cupy._places import Places, places_of
from gradclip.backends.cupy._runtime import Runtime, Uploaded
from gradclip.backends.cupy._table import table_of
from gradclip.backends.cupy._tree import CupyLeaves, Source, leaves_of

HERE = Path(__file__).parent
KERNELS = HERE.parents[2] / "backends" / "cupy"
COMPILER = next((found for name in ("g++", "clang++") if (found := shutil.which(name))), None)
BLOCK = 64  # threads of an emulated block: two warps, so that every stage of a reduction has something to do

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
CODES = {name: code for name, code in _table.CODES.items() if name in DTYPES}

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++ or clang++) to emulate the GPU with")


@cache
def library(folder: Path, code: int, pairs: int) -> ctypes.PyDLL:
    """Return the kernels for a dtype, compiled for the CPU."""
    target = folder / f"kernels-{code}-{pairs}.so"
    assert COMPILER is not None
    macros = [f"-DGRADCLIP_{name}" for name in ("HOST", f"DTYPE={code}", f"PAIRS={pairs}")]
    flags = ["-std=c++17", "-O1", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-shared", "-fPIC", f"-I{KERNELS}"]
    subprocess.run([COMPILER, *flags, *macros, str(HERE / "host.cpp"), "-o", str(target)], check=True)
    return ctypes.PyDLL(str(target))  # which keeps the GIL: the shim has one set of threads


class EmulatedRuntime(Runtime):
    """NumPy's memory in the place of a GPU's. ``devices`` may pretend that arrays are on several GPUs.

    With ``refused``, the kernels cannot be used, for this reason.
    """

    def __init__(self, folder: Path, *, pairs: bool = False, block: int = BLOCK, refused: str | None = None) -> None:
        super().__init__(np)  # `Source` takes the arrays' type from it
        self.refused = refused
        self.folder = folder
        self.pairs = pairs
        self.block = block
        self.launched: list[tuple[str, int, int]] = []
        self.copies = 0
        self.uploads = 0
        self.devices: dict[int, int] = {}
        self.current = 0
        self.uploaded: dict[tuple[Places, Places], Uploaded] = {}

    def refusal(self, device: int) -> str | None:
        return self.refused

    @contextmanager
    def on(self, device: int) -> Iterator[None]:
        before, self.current = self.current, device
        yield
        self.current = before

    def places(self, arrays: Sequence[Any]) -> Places:
        keys = []
        for x in arrays:
            device = next((d for start, d in self.devices.items() if start == x.ctypes.data), 0)
            keys.append((x.ctypes.data, x.shape, x.strides, x.dtype, device))
        return places_of(tuple(keys))

    def scratch(self, nbytes: int) -> Any:
        return np.full(nbytes + 16, 0xAB, np.uint8)[:nbytes]  # never zeros by chance

    def kept(self, memory: Any) -> Any:
        return memory

    def view(self, memory: Any, offset: int, dtype: Any, shape: tuple[int, ...] = ()) -> Any:
        return np.ndarray(shape, dtype, buffer=memory.base if memory.base is not None else memory, offset=offset)

    def table(self, sources: Places, targets: Places) -> Uploaded:
        if (sources, targets) not in self.uploaded:
            self.uploads += 1
            table = table_of(sources.items, targets.items)
            memory = np.empty(max(1, table.nbytes), np.uint8)
            memory[: table.nbytes] = table.bytes_at(memory.ctypes.data)
            self.uploaded[sources, targets] = Uploaded(table, memory, memory.ctypes.data)
        return self.uploaded[sources, targets]

    def launch(self, name: str, code: int, blocks: int, *arguments: Any) -> None:
        assert blocks > 0
        self.launched.append((name, code, blocks))
        function = getattr(library(self.folder, code, int(self.pairs and code != 64)), f"host_{name}")
        function(blocks, self.block, *map(_argument, arguments))

    def copy(self, source: Any, target: Any) -> None:
        self.copies += 1
        target[...] = source

    def order(self, *, descending: bool) -> None:
        """Choose in which order the threads of a block run."""
        for code in CODES.values():
            library(self.folder, code, int(self.pairs and code != 64)).host_order(int(descending))


def _argument(x: Any) -> Any:
    if isinstance(x, np.int32):
        return ctypes.c_int(int(x))
    return ctypes.c_double(x) if isinstance(x, float) else ctypes.c_int64(int(x))


class NumpySource(Source):
    """Arrays and scalars of NumPy's, where CuPy has arrays alone."""

    def parts(self, leaf: Any) -> Any:
        return super().parts(np.asarray(leaf) if isinstance(leaf, np.generic) else leaf)


def leaves(runtime: EmulatedRuntime, container: Any) -> CupyLeaves:
    """Return a container's leaves as the adapter does, on NumPy's arrays."""
    source = NumpySource(runtime, "grad")
    return leaves_of(source, container, "grads")


def xp() -> Any:
    return ns.namespace([np.zeros(1)])


__all__ = [
    "BLOCK",
    "CODES",
    "DTYPES",
    "EmulatedRuntime",
    "Leaves",
    "NumpySource",
    "leaves",
    "library",
    "needs_compiler",
    "xp",
]
