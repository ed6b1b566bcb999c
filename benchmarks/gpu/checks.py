"""Checks that results on this GPU are right and that nothing waits. They need no pytest."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def cupy_checks(cupy: Any) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Yield what is checked, and the check."""
    from gradclip.backends import cupy as ours

    rng = np.random.default_rng(0)

    def norm(dtype: str, scale: float, ord: float) -> bool:
        host = [(rng.standard_normal(n) * scale).astype(dtype) for n in (1, 7, 100_003)]
        flat = [abs(float(v)) for x in host for v in x]
        top = max(flat)
        total = top if ord == math.inf else top * math.fsum((v / top) ** ord for v in flat) ** (1 / ord)
        got = float(ours.global_norm([cupy.asarray(x) for x in host], ord=ord))
        return abs(got - total) <= (1e-14 if dtype == "float64" else 1e-6) * total

    def graph() -> bool:
        x = cupy.ones(10_000, "float32")
        ours.clip_by_global_norm_(x, 1.0)
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            ours.clip_by_global_norm_(x, 1.0)
            captured = stream.end_capture()
            x[...] = 3.0
            captured.launch(stream)
            stream.synchronize()
        return abs(float(ours.global_norm(x)) - 1) < 1e-6

    for dtype, scales in (("float16", (1.0,)), ("float32", (1e-30, 1.0, 1e30)), ("float64", (1e-300, 1.0, 1e300))):
        for scale in scales:
            for order in (1.0, 2.0, 3.0, math.inf):
                yield (
                    f"cupy: norm of {dtype} near {scale:g}, ord={order:g}",
                    lambda d=dtype, s=scale, o=order: norm(d, s, o),
                )
    yield "cupy: a captured graph clips", graph


def torch_checks(torch: Any) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Yield what is checked, and the check."""
    from gradclip.backends import torch as ours

    def clip(dtype: Any) -> bool:
        params = [torch.nn.Parameter(torch.zeros(n, device="cuda", dtype=dtype)) for n in (3, 100_003)]
        for p in params:
            p.grad = torch.randn_like(p)
        ours.clip_grad_norm_(params, 1.0)
        for p in params:
            p.grad = torch.randn_like(p)
        exact = torch.cat([p.grad.double() for p in params]).norm()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            got = ours.clip_grad_norm_(params, 1.0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return abs(float(got) - float(exact)) <= 1e-6 * float(exact)

    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        yield f"torch: {dtype} is clipped without a synchronisation", lambda d=dtype: clip(d)


def run(checks: Iterator[tuple[str, Callable[[], bool]]]) -> dict[str, str]:
    """Run checks, print those that fail, and return the result of each."""
    results = {}
    for name, check in checks:
        try:
            results[name] = "passed" if check() else "failed"
        except Exception as e:  # run the other checks too
            results[name] = f"failed: {type(e).__name__}: {e}"
        if results[name] != "passed":
            print(f"{name}: {results[name]}")
    return results
