"""The monitor's rows: what it adds to a step of PyTorch, beside the time that it may take."""

import math
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter_ns
from typing import Any

import torch

from benchmarks import frameworks, sets
from benchmarks.accuracy import Implementation
from benchmarks.exact import relative_error, wide_norm
from benchmarks.row import Budget, Contender, Row, Schedule, Setup
from benchmarks.sets import GradientSet
from gradclip.monitor import NormMonitor

_OURS, _MISSING = frameworks.adapter("torch")
PARAMETERS = GradientSet("150 x 64", ((64,),) * 150)
LIMITS_US = {"norms": 20, "norms of parameters": 100}
"""The microseconds that a monitor may add to a step, without and with the norms of parameters."""


def step(case: str) -> Row:
    """Return the row of what a handle's monitor does at each step, its share of fetches included."""

    def build(chosen: GradientSet) -> Setup:
        leaves = sets.values(chosen, "float32")
        params = [torch.nn.Parameter(torch.zeros(x.shape)) for x in leaves]
        for p, x in zip(params, leaves, strict=True):
            p.grad = torch.from_numpy(x)
        optimizer = torch.optim.SGD(params, lr=0.0)
        ours: Any = _OURS
        handle = ours.attach(optimizer)
        named = [(f"layers.{i}.weight", p) for i, p in enumerate(params)]
        monitor = NormMonitor(handle, parameters=named if case != "norms" else None)
        (observer,) = handle.observers
        optimizer.step()

        def observe(_: float) -> None:
            observer.before_clipping(handle, 1.0)
            observer(handle)

        def check(_: object, __: float) -> Mapping[str, float]:
            last = monitor.last()
            norms = [last[f"grad_norm/{name}"] for name, _ in named] if case != "norms" else [last["grad_norm"]]
            right = wide_norm(leaves)
            return {
                "norm": relative_error(last["grad_norm"], right),
                "result": relative_error(math.hypot(*norms), right),
            }

        limit = LIMITS_US[case]
        wait = Contender(f"a wait of {limit} µs", "peer", _wait(limit))
        return Setup([Contender("NormMonitor", "ours", observe), wait], Schedule(math.inf), check)

    budget = Budget(f"a wait of {LIMITS_US[case]} µs", 1.0)
    return Row("monitor", "NormMonitor, each step", PARAMETERS, "float32", case, build, (1, 0), (budget,), _MISSING)


def rows() -> Iterable[Row]:
    """Return the rows."""
    return map(step, LIMITS_US)


def implementations() -> Iterable[Implementation]:
    """Return nothing: a monitor computes no norm of its own."""
    return ()


def versions() -> Mapping[str, str]:
    """Return the versions and settings on which the figures depend."""
    return {"torch": torch.__version__, "threads": str(torch.get_num_threads())}


def _wait(microseconds: int) -> Callable[[float], None]:
    def wait(_: float) -> None:
        end = perf_counter_ns() + 1000 * microseconds
        while perf_counter_ns() < end:
            pass

    return wait
