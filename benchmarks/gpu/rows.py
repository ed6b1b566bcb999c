"""The rows: every set of gradients, not clipped and clipped, with each contender."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial as bind
from typing import Any

from benchmarks.gpu.clock import CupyDevice, Device, Timing, TorchDevice, measure

SETS = {
    "1 GB": [(1 << 22,)] * 64,
    "8 GB": [(1 << 25,)] * 64,
    "1,000 of 64": [(64,)] * 1000,
}
_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    ``floor`` is the least number of bytes to move: one read, and if something is clipped one more read and one write.
    """

    framework: str
    gradients: str
    dtype: str
    clipped: bool
    contender: str
    timing: Timing
    floor: int
    copy: float

    @property
    def share(self) -> float:
        """The floor's bytes divided by the time, as a fraction of a copy's bandwidth."""
        return self.floor / self.timing.device / self.copy


def sets(shapes: Sequence[tuple[int, ...]], free: int) -> Iterator[tuple[str, str, Sequence[tuple[int, ...]]]]:
    """Yield title, dtype and shapes of the sets that fit into the free memory of a GPU."""
    for dtype, width in (("float32", 4), ("bfloat16", 2)):
        for title, found in {"GPT-2-small": shapes, **SETS}.items():
            of_set = [(n * 4 // width,) for (n,) in found] if title.endswith("GB") else found
            if size(of_set) * width * 3 < free:
                yield title, dtype, of_set


def size(shapes: Sequence[tuple[int, ...]]) -> int:
    """Return the number of elements."""
    total = 0
    for shape in shapes:
        n = 1
        for length in shape:
            n *= length
        total += n
    return total


def torch_rows(torch: Any, shapes: Sequence[tuple[int, ...]]) -> Iterator[Row]:
    """Yield the rows of PyTorch."""
    from gradclip._decision import Rule
    from gradclip._global import clip_leaves_
    from gradclip.backends import torch as ours
    from gradclip.backends.torch._leaves import gradients
    from gradclip.backends.torch.ops._device import DEVICE

    device = TorchDevice(torch)
    copy = bandwidth(device, lambda: torch.zeros(1 << 30, dtype=torch.uint8, device="cuda"), lambda a, b: b.copy_(a))

    def foreach(params: Any, limit: float) -> Any:
        leaves = gradients(params)
        without = replace(leaves, ops=DEVICE)
        return clip_leaves_(without, Rule(limit))

    contenders = {
        "gradclip.backends.torch": ours.clip_grad_norm_,
        "the same without Triton": foreach,
        "torch.nn.utils (foreach)": lambda p, m: torch.nn.utils.clip_grad_norm_(p, m, foreach=True),
    }
    for title, dtype, of_set in sets(shapes, torch.cuda.mem_get_info()[0] // 2):
        params = []
        for shape in of_set:
            p = torch.nn.Parameter(torch.empty(shape, device="cuda", dtype=getattr(torch, dtype)))
            p.grad = torch.randn_like(p) * 1e-2
            params.append(p)
        grads = [p.grad for p in params]
        kept = [g.clone() for g in grads]
        reset = bind(torch._foreach_copy_, grads, kept)
        yield from _rows("torch", device, title, dtype, of_set, contenders, params, reset, copy)
        del params, grads, kept, reset
        torch.cuda.empty_cache()


def cupy_rows(cupy: Any, shapes: Sequence[tuple[int, ...]]) -> Iterator[Row]:
    """Yield the rows of CuPy."""
    from gradclip.backends import cupy as ours

    device = CupyDevice(cupy)
    copy = bandwidth(device, lambda: cupy.zeros(1 << 30, cupy.uint8), lambda a, b: cupy.copyto(b, a))

    def leaf_by_leaf(grads: Any, limit: float) -> None:
        total = cupy.sqrt(sum(cupy.linalg.norm(g) ** 2 for g in grads))
        factor = cupy.minimum(limit / total, 1.0).astype(grads[0].dtype)
        for g in grads:
            g *= factor

    contenders = {"gradclip.backends.cupy": ours.clip_by_global_norm_, "cupy.linalg.norm a leaf": leaf_by_leaf}
    for title, dtype, of_set in sets(shapes, cupy.cuda.runtime.memGetInfo()[0] // 2):
        if dtype == "bfloat16":
            dtype = "float16"  # CuPy has no bfloat16 in every version; float16 has the same width
        grads = [cupy.random.standard_normal(shape, dtype="float32").astype(dtype) * 1e-2 for shape in of_set]
        grads = [g.astype(dtype) for g in grads]
        kept = [g.copy() for g in grads]
        reset = bind(_copy_all, cupy, grads, kept)
        yield from _rows("cupy", device, title, dtype, of_set, contenders, grads, reset, copy)
        del grads, kept, reset
        cupy.get_default_memory_pool().free_all_blocks()


def jax_rows(jax: Any, shapes: Sequence[tuple[int, ...]], free: int, copy: float) -> Iterator[Row]:
    """Yield the rows of JAX under jit, timed by the host with one wait per call. Every call writes, clipped or not.

    The set of a thousand leaves is left out, because XLA takes a minute to compile for it.
    """
    import optax

    from gradclip.backends import jax as ours

    for title, dtype, of_set in sets(shapes, free):
        if len(of_set) >= 1000:
            continue
        contenders = {
            "gradclip.backends.jax": jax.jit(lambda g, m: ours.clip_by_global_norm(g, m)[0], donate_argnums=0),
            "optax": jax.jit(
                lambda g, m: optax.clip_by_global_norm(m).update(g, optax.EmptyState())[0], donate_argnums=0
            ),
        }
        kept = [jax.random.normal(jax.random.key(i), shape, dtype) * 1e-2 for i, shape in enumerate(of_set)]
        copied = jax.jit(lambda g: [x.copy() for x in g])
        for clipped in (False, True):
            limit, times = 1.0 if clipped else 1e9, {name: [] for name in contenders}
            for _ in range(20):
                for name, clip in contenders.items():
                    grads = jax.block_until_ready(copied(kept))
                    start = time.perf_counter()
                    jax.block_until_ready(clip(grads, limit))
                    times[name].append(time.perf_counter() - start)
            floor = size(of_set) * _WIDTHS[dtype] * (3 if clipped else 1)
            for name in contenders:
                middle = statistics.median(times[name])
                yield Row("jax", title, dtype, clipped, name, Timing(middle, middle), floor, copy)
        del grads, kept


def bandwidth(device: Device, make: Callable[[], Any], copy: Callable[[Any, Any], object]) -> float:
    """Return the bytes per second, read and written, of a copy of 1 GB within the device's memory."""
    one, other = make(), make()
    return 2 * (1 << 30) / measure(device, {"copy": lambda: copy(one, other)})["copy"].device


def _copy_all(cupy: Any, targets: Sequence[Any], sources: Sequence[Any]) -> None:
    for target, source in zip(targets, sources, strict=True):
        cupy.copyto(target, source)


def _rows(
    framework: str,
    device: Device,
    title: str,
    dtype: str,
    shapes: Any,
    contenders: Any,
    given: Any,
    reset: Callable[[], object],
    copy: float,
) -> Iterator[Row]:
    """Yield the rows of one set. Its gradients are restored before every call, so that all calls get the same."""
    for clipped in (False, True):
        calls = {name: bind(clip, given, 1.0 if clipped else 1e9) for name, clip in contenders.items()}
        for name, timing in measure(device, calls, reset).items():
            floor = size(shapes) * _WIDTHS[dtype] * (3 if clipped else 1)
            yield Row(framework, title, dtype, clipped, name, timing, floor, copy)
