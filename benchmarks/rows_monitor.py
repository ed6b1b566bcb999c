"""What a monitor and a policy add to a step of PyTorch, beside the time that they may take."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter_ns
from typing import Any

import torch

from benchmarks import frameworks, sets
from benchmarks.accuracy import Implementation
from benchmarks.exact import relative_error, wide_norm
from benchmarks.row import Budget, Contender, Row, Schedule, Setup
from benchmarks.sets import GradientSet, NDArray
from gradclip.monitor import NormMonitor
from gradclip.policies import ZClip

_OURS, _MISSING = frameworks.adapter("torch")
PARAMETERS = GradientSet("150 x 64", ((64,),) * 150)
LIMITS_US = {"norms": 20, "norms of parameters": 100}
"""The microseconds that a monitor may add to a step, without and with the norms of parameters."""
POLICY_US = 30
"""The microseconds that a policy may add to a step with a fixed threshold."""


class _Still(torch.optim.Optimizer):
    """An optimizer whose step only runs the hooks."""

    def __init__(self, params: list[torch.nn.Parameter]) -> None:
        super().__init__(params, {})

    def step(self, closure: object = None) -> None:  # noqa: ARG002  # as in the base class
        return None


def step(case: str) -> Row:
    """Return the row of what a handle's monitor does at each step, its share of fetches included."""

    def build(chosen: GradientSet) -> Setup:
        leaves = sets.values(chosen, "float32")
        params = _parameters(leaves)
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


def policy() -> Row:
    """Return the row of a policy's step beside that of a fixed threshold and a wait."""

    def build(chosen: GradientSet) -> Setup:
        leaves = sets.values(chosen, "float32")
        params = _parameters(leaves)
        ours: Any = _OURS
        by_policy, fixed = _Still(params), _Still(params)
        handle = ours.attach(by_policy, ZClip(max_norm=None))
        ours.attach(fixed, 1e30)
        wait = _wait(POLICY_US)

        def step_and_wait(_: float) -> None:
            fixed.step()
            wait(_)

        def check(_: object, __: float) -> Mapping[str, float]:
            by_policy.step()
            right = wide_norm(leaves)
            return {"norm": relative_error(float(handle.norm), right), "result": 0.0}

        peer = Contender(f"attach(1e30) and {POLICY_US} µs", "peer", step_and_wait)
        mine = Contender("attach(ZClip())", "ours", lambda _: by_policy.step())
        return Setup([mine, peer], Schedule(math.inf), check)

    budget = Budget(f"attach(1e30) and {POLICY_US} µs", 1.0)
    return Row("monitor", "attach with a policy", PARAMETERS, "float32", "ZClip", build, (1, 0), (budget,), _MISSING)


def rows() -> Iterable[Row]:
    """Return the rows."""
    return [*map(step, LIMITS_US), policy()]


def implementations() -> Iterable[Implementation]:
    """Return nothing: a monitor computes no norm of its own."""
    return ()


def versions() -> Mapping[str, str]:
    """Return the versions and settings on which the figures depend."""
    return {"torch": torch.__version__, "threads": str(torch.get_num_threads())}


def _parameters(leaves: Sequence[NDArray]) -> list[torch.nn.Parameter]:
    """Return parameters with these gradients."""
    params = [torch.nn.Parameter(torch.zeros(x.shape)) for x in leaves]
    for p, x in zip(params, leaves, strict=True):
        p.grad = torch.from_numpy(x)
    return params


def _wait(microseconds: int) -> Callable[[float], None]:
    def wait(_: float) -> None:
        end = perf_counter_ns() + 1000 * microseconds
        while perf_counter_ns() < end:
            pass

    return wait
