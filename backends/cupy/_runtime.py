"""What the operations need from a GPU: compiled kernels, scratch memory, uploaded tables, copies between devices."""

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib import import_module, resources
from typing import Any

import numpy as np

from gradclip._limits import KEPT_TABLES
from gradclip._pieces import Group
from gradclip._types import AnyArray
from gradclip.backends.cupy._limits import CHEAP_FLOAT64_RATIO, FINISH_THREADS, THREADS
from gradclip.backends.cupy._places import Places, places_of
from gradclip.backends.cupy._table import ANY_DTYPE, CODES, Table, table_of

_TO_DEVICE = 1  # cudaMemcpyHostToDevice


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A table in a device's memory.

    Parameters
    ----------
    table : Table
        The table that was uploaded.
    memory : array of uint8
        Its copy on the device.
    address : int
        The address of ``memory``.
    staging : object
        The host's memory, which must be kept until the copy is done, and an event that says when it is.
    """

    table: Table
    memory: AnyArray
    address: int
    staging: object = None

    def pieces_at(self, group: Group) -> int:
        """Return the address of a group's pieces."""
        return self.address + group.begin * self.table.pieces.itemsize


class Runtime:
    """Access to GPUs through CuPy. Tests have a subclass that takes NumPy's memory for that of GPUs.

    Nothing waits for a device. Tables are kept for each stream, because memory may be reused only in the order of the
    stream on which it was allocated. While a stream is captured into a graph, kept tables are not used: the graph
    uploads its own, which is kept until the process ends.

    Parameters
    ----------
    cupy : module
        CuPy, which is imported when a function is called, not when this module is.
    """

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self._tables: OrderedDict[tuple[object, ...], Uploaded] = OrderedDict()
        self._staged: list[Any] = []
        self._captured: list[object] = []
        self._functions: dict[tuple[str, int, int], Any] = {}
        self._refusals: dict[int, str | None] = {}

    def refusal(self, device: int) -> str | None:
        """Return why the kernels cannot be compiled or loaded for a device, or None if they can. It is tried once."""
        if device not in self._refusals:
            try:
                with self.on(device):
                    self._function("finish", ANY_DTYPE)
                self._refusals[device] = None
            except Exception as e:  # CuPy raises errors of many types: no compiler, a device too old, no memory
                self._refusals[device] = f"{type(e).__name__}: {e}"
        return self._refusals[device]

    def on(self, device: int) -> AbstractContextManager[Any]:
        """Return a context in which a device is the current one."""
        context: AbstractContextManager[Any] = self.cupy.cuda.Device(device)
        return context

    def places(self, arrays: Sequence[AnyArray]) -> Places:
        """Return the places of arrays in memory: the same object while they do not change."""
        return places_of(tuple([_key(x) for x in arrays]))

    def scratch(self, nbytes: int) -> AnyArray:
        """Return uninitialised memory of the current device, as an array of uint8."""
        return self.kept(self.cupy.empty(nbytes, np.uint8))

    def kept(self, memory: AnyArray) -> AnyArray:
        """Return an array, and keep its memory until the process ends if a graph that uses it is being captured."""
        if self.cupy.cuda.get_current_stream().is_capturing():
            self._captured.append(memory)
        return memory

    def view(self, memory: AnyArray, offset: int, dtype: Any, shape: tuple[int, ...] = ()) -> AnyArray:
        """Return an array that is a view of ``memory``, ``offset`` bytes from its start."""
        return self.cupy.ndarray(shape, dtype, memptr=memory.data + offset)

    def table(self, sources: Places, targets: Places) -> Uploaded:
        """Return the table for arrays of the current device, in its memory; it is kept while the arrays stay there."""
        stream = self.cupy.cuda.get_current_stream()
        if stream.is_capturing():
            uploaded = self._upload(table_of(sources.items, targets.items), stream, for_a_graph=True)
            self._captured.append(uploaded)
            return uploaded
        key = self.cupy.cuda.Device().id, stream.ptr, sources, targets
        if key in self._tables:
            self._tables.move_to_end(key)
        else:
            self._tables[key] = self._upload(table_of(sources.items, targets.items), stream)
            self._forget()
        return self._tables[key]

    def launch(self, name: str, code: int, blocks: int, *arguments: Any) -> None:
        """Start a kernel on the current stream of the current device. Python's integers are passed with 64 bits."""
        self._function(name, code)((blocks,), (FINISH_THREADS if name == "finish" else THREADS,), arguments)

    def copy(self, source: AnyArray, target: AnyArray) -> None:
        """Copy bytes to another device in the order of both devices' current streams."""
        there, here = source.data.device_id, target.data.device_id
        with self.on(there):
            ready = self._record()
        with self.on(here):
            stream = self.cupy.cuda.get_current_stream()
            stream.wait_event(ready)
            target.data.copy_from_device_async(source.data, source.nbytes, stream)
            done = self._record()
        with self.on(there):  # the source's memory may be reused only after the copy
            self.cupy.cuda.get_current_stream().wait_event(done)

    def _record(self) -> Any:
        event = self.cupy.cuda.Event(disable_timing=True)
        event.record(self.cupy.cuda.get_current_stream())
        return event

    def _upload(self, table: Table, stream: Any, *, for_a_graph: bool = False) -> Uploaded:
        memory = self.scratch(max(1, table.nbytes))
        pinned = self.cupy.cuda.alloc_pinned_memory(max(1, table.nbytes))  # copies from other memory would wait
        np.frombuffer(pinned, np.uint8, table.nbytes)[:] = table.bytes_at(memory.data.ptr)
        # The array's own method refuses to copy while a graph is captured.
        self.cupy.cuda.runtime.memcpyAsync(memory.data.ptr, pinned.ptr, table.nbytes, _TO_DEVICE, stream.ptr)
        return Uploaded(table, memory, memory.data.ptr, (pinned, None if for_a_graph else self._record()))

    def _forget(self) -> None:
        """Drop the table that was used least recently, and the host's copies of tables that were uploaded."""
        if len(self._tables) > KEPT_TABLES:
            self._staged.append(self._tables.popitem(last=False)[1].staging)
        self._staged = [staging for staging in self._staged if not staging[1].done]

    def _function(self, name: str, code: int) -> Any:
        """Return a kernel, compiled for a dtype and loaded on the current device."""
        device = self.cupy.cuda.Device()
        key = name, code, device.id
        if key not in self._functions:
            ratio = device.attributes.get("SingleToDoublePrecisionPerfRatio", 1)
            pairs = int(code != CODES["float64"] and ratio > CHEAP_FLOAT64_RATIO)
            options = "-std=c++17", f"-DGRADCLIP_DTYPE={code}", f"-DGRADCLIP_PAIRS={pairs}"
            self._functions[key] = _module(self.cupy, options, device.id).get_function(name)
        return self._functions[key]


def _key(x: AnyArray) -> tuple[Any, ...]:
    data = x.data
    return data.ptr, x.shape, x.strides, x.dtype, data.device_id


@cache
def _module(cupy: Any, options: tuple[str, ...], device: int) -> Any:  # noqa: ARG001  # modules are loaded by device
    return cupy.RawModule(code=source(), options=options, backend="nvrtc")


@cache
def source() -> str:
    """Return the CUDA C++ source of the kernels."""
    return (resources.files("gradclip.backends.cupy") / "kernels.cu").read_text()


@cache
def runtime() -> Runtime:
    """Return the GPUs of this machine.

    Raises
    ------
    RuntimeError
        If CuPy is not installed, or finds no GPU.
    """
    try:
        cupy = import_module("cupy")
    except ImportError as e:
        raise RuntimeError(
            f"gradclip.backends.cupy cannot import CuPy ({e}), expected CuPy and an NVIDIA GPU; "
            'pip install "gradclip[cupy]" for CUDA 13, or the CuPy for your CUDA; on a CPU, use gradclip with NumPy'
        ) from e
    try:
        found, why = cupy.cuda.runtime.getDeviceCount(), "there is none"
    except Exception as e:  # the type is CuPy's own, and CuPy is not imported at the top of this module
        found, why = 0, str(e)
    if not found:
        raise RuntimeError(
            f"gradclip.backends.cupy found no GPU ({why}), expected an NVIDIA GPU and its driver; "
            "on a CPU, use gradclip with NumPy"
        )
    return Runtime(cupy)
