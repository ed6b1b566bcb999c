"""Measures time on the device, by its events with a full queue, and the host's time of a call."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Timing:
    """Medians of one contender, in seconds per call."""

    device: float
    host: float


class Device(Protocol):
    """What is needed from a framework to measure time on its GPU."""

    def event(self) -> Any: ...
    def seconds(self, start: Any, stop: Any) -> float: ...
    def wait(self) -> None: ...
    def busy(self) -> None: ...


class TorchDevice:
    """PyTorch's current GPU."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch

    def event(self) -> Any:
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, stop: Any) -> float:
        return float(start.elapsed_time(stop)) / 1e3

    def wait(self) -> None:
        self.torch.cuda.synchronize()

    def busy(self) -> None:
        self.torch.cuda._sleep(20_000_000)  # about 10 ms: the host runs ahead, and its time does not count


class CupyDevice:
    """CuPy's current GPU."""

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self._work = cupy.zeros(1 << 28, cupy.uint8)

    def event(self) -> Any:
        event = self.cupy.cuda.Event()
        event.record()
        return event

    def seconds(self, start: Any, stop: Any) -> float:
        return float(self.cupy.cuda.get_elapsed_time(start, stop)) / 1e3

    def wait(self) -> None:
        self.cupy.cuda.Device().synchronize()

    def busy(self) -> None:
        for _ in range(60):  # some 10 ms
            self._work += 1


def measure(
    device: Device,
    calls: Mapping[str, Callable[[], object]],
    before: Callable[[], object] = lambda: None,
    repeats: int = 20,
) -> dict[str, Timing]:
    """Return the medians of each call, which take turns: the device's time behind a full queue, and the host's time.

    ``before`` runs before each call and is not timed. A call that raises is left out, and its error is printed.
    """
    able = {name: call for name, call in calls.items() if _warm(name, call, before)}
    device.wait()
    on_device: dict[str, list[float]] = {name: [] for name in able}
    on_host: dict[str, list[float]] = {name: [] for name in able}
    for _ in range(repeats):
        for name, call in able.items():
            before()
            device.busy()
            start = device.event()
            began = time.perf_counter()
            call()
            on_host[name].append(time.perf_counter() - began)
            stop = device.event()
            device.wait()
            on_device[name].append(device.seconds(start, stop))
    return {name: Timing(statistics.median(on_device[name]), statistics.median(on_host[name])) for name in able}


def _warm(name: str, call: Callable[[], object], before: Callable[[], object]) -> bool:
    try:
        for _ in range(3):
            before()
            call()
    except (RuntimeError, ImportError) as e:  # a peer may run out of memory
        print(f"without {name}: {type(e).__name__}: {e}")
        return False
    return True
