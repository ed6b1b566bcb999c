"""What CuPy is asked for, with a stand-in that writes it down: nothing here may wait for the device."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest

from gradclip.backends.cupy import _runtime
from gradclip.backends.cupy._runtime import KEPT, CupyRuntime, places_of


class Recorder:
    """A stand-in for CuPy: memory is NumPy's, and every call that matters is written down."""

    def __init__(self) -> None:
        self.log: list[tuple] = []
        self.device, self.stream, self.capturing, self.ratio, self.arrived = 0, 7, False, 2, True
        recorder = self

        class Stream:
            ptr = property(lambda _: recorder.stream)

            def is_capturing(self):
                return recorder.capturing

            def wait_event(self, event):
                recorder.log.append(("wait", recorder.device, event.made_on))

        class Event:
            def __init__(self, *, disable_timing):
                assert disable_timing

            done = property(lambda _: recorder.arrived)

            def record(self, stream):
                self.made_on = recorder.device

        class Device:
            def __init__(self, number=None):
                self.id = recorder.device if number is None else number
                self.attributes = {"SingleToDoublePrecisionPerfRatio": recorder.ratio}

            def __enter__(self):
                self.before, recorder.device = recorder.device, self.id

            def __exit__(self, *_):
                recorder.device = self.before

        class Module:
            def __init__(self, *, code, options, backend):
                assert "extern" in code
                assert backend == "nvrtc"
                recorder.log.append(("compile", recorder.device, options[1:]))

            def get_function(self, name):
                return lambda grid, block, arguments: recorder.log.append(("launch", name, grid, block, arguments))

        self.cuda = SimpleNamespace(
            Stream=Stream, Event=Event, Device=Device, get_current_stream=Stream, alloc_pinned_memory=self.pinned
        )
        self.RawModule = Module

    def pinned(self, nbytes):
        memory = np.zeros(nbytes, np.uint8)
        return _Pinned(memory)

    def empty(self, nbytes, dtype):
        data = SimpleNamespace(ptr=1 << 40, device_id=self.device)
        data.copy_from_host_async = lambda at, n, stream: self.log.append(("upload", n))
        data.copy_from_device_async = lambda source, n, stream: self.log.append(("copy", n, self.device))
        return SimpleNamespace(data=data, nbytes=nbytes)


class _Pinned:
    """Page-locked memory: a buffer that has an address."""

    def __init__(self, memory):
        self.memory, self.ptr = memory, memory.ctypes.data

    def __buffer__(self, flags):
        return memoryview(self.memory)


@pytest.fixture
def cupy(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(_runtime.np, "frombuffer", lambda pinned, dtype, n: pinned.memory[:n])
    _runtime._module.cache_clear()
    return recorder


def places(*addresses):
    return places_of(tuple((address, (100,), (4,), np.dtype(np.float32), 0) for address in addresses))


def test_a_table_is_uploaded_once_for_each_set_of_arrays_and_stream(cupy):
    runtime = CupyRuntime(cupy)
    first = runtime.table(places(4096, 8192), places(4096, 8192))
    assert runtime.table(places(4096, 8192), places(4096, 8192)) is first
    assert cupy.log == [("upload", 2 * 40 + 2 * 16)]
    cupy.stream = 8
    assert runtime.table(places(4096, 8192), places(4096, 8192)) is not first
    assert len(cupy.log) == 2


def test_a_graph_gets_tables_of_its_own_that_stay(cupy):
    runtime = CupyRuntime(cupy)
    kept = runtime.table(places(4096), places(4096))
    cupy.capturing = True
    captured = runtime.table(places(4096), places(4096))
    assert captured is not kept
    assert runtime._captured == [captured]
    cupy.capturing = False
    assert runtime.table(places(4096), places(4096)) is kept


def test_tables_do_not_pile_up_and_staging_lives_until_it_has_arrived(cupy):
    runtime = CupyRuntime(cupy)
    cupy.arrived = False
    for i in range(KEPT + 5):
        runtime.table(places(4096 * (i + 1)), places(4096 * (i + 1)))
    assert len(runtime._tables) == KEPT
    assert len(runtime._staged) == 5
    cupy.arrived = True
    runtime.table(places(1 << 30), places(1 << 30))
    assert runtime._staged == []


def test_kernels_are_compiled_once_for_each_device_and_dtype(cupy):
    runtime = CupyRuntime(cupy)
    for device in (0, 1, 0):
        with runtime.on(device):
            for code in (32, 64, 32):
                runtime.launch("scale", code, 5, 4096, np.int32(1))
    compiled = [entry[1:] for entry in cupy.log if entry[0] == "compile"]
    assert sorted(compiled) == [(d, (f"-DGRADCLIP_DTYPE={c}", "-DGRADCLIP_PAIRS=0")) for d in (0, 1) for c in (32, 64)]
    assert cupy.log[-1] == ("launch", "scale", (5,), (256,), (4096, np.int32(1)))


def test_devices_whose_float64_is_slow_add_in_pairs(cupy):
    cupy.ratio = 64
    runtime = CupyRuntime(cupy)
    runtime.launch("merge", 32, 1)
    runtime.launch("merge", 64, 1)
    assert [entry[2][1] for entry in cupy.log if entry[0] == "compile"] == ["-DGRADCLIP_PAIRS=1", "-DGRADCLIP_PAIRS=0"]


def test_a_copy_between_devices_waits_on_both_sides(cupy):
    runtime = CupyRuntime(cupy)
    with runtime.on(1):
        source = runtime.scratch(16)
    runtime.copy(source, runtime.scratch(16))
    assert cupy.log == [("wait", 0, 1), ("copy", 16, 0), ("wait", 1, 0)]


def test_nothing_is_synchronised():
    """No call that waits is in the adapter's source: synchronise, get, item, float of an array."""
    folder = _runtime.resources.files("gradclip.backends.cupy")
    for name in ("_ops.py", "_runtime.py", "_tree.py", "_result.py", "_places.py"):
        text = (folder / name).read_text()
        for call in (".synchronize(", ".get()", ".item(", "asnumpy"):
            assert call not in text, f"{name} calls {call}"


def test_places_of_cupy_arrays():
    data = SimpleNamespace(ptr=64, device_id=3)
    x = SimpleNamespace(data=data, shape=(2, 3), strides=(12, 4), dtype=np.dtype(np.float32))
    (place,) = CupyRuntime(SimpleNamespace()).places([x]).items
    assert place == (64, (2, 3), None, "float32", 4, 3)
    with contextlib.suppress(AttributeError):
        del data.device_id
