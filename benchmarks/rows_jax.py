"""JAX's rows: gradclip.backends.optax and .jax, optax, and one pass over the same memory."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import frameworks, machine, sets, steps_jax
from benchmarks.accuracy import Implementation
from benchmarks.exact import relative_error
from benchmarks.row import CLIPPED, UNCLIPPED, Budget, Contender, Row, Schedule, Setup, global_schedule
from benchmarks.sets import GradientSet, NDArray
from benchmarks.steps_jax import PEER, Gradients, Transformation, ready

_JAX, _JAX_MISSING = frameworks.adapter("jax")
_OPTAX, _OPTAX_MISSING = frameworks.adapter("optax")


def blocked(function: Callable[..., Any], *arguments: Any) -> Callable[[float], Any]:
    """Return a contender's call that waits for the result, because JAX returns before it is computed."""
    return lambda _: ready(function(*arguments))


def clip_only(gradients: GradientSet, case: str) -> Row:
    """Return the row of clipping alone, under jit."""

    def build(chosen: GradientSet) -> Setup:
        grads = Gradients(chosen)
        schedule = Schedule(global_schedule(grads.norm, case).first)
        ours: Any = _JAX
        compiled = jax.jit(lambda leaves: ours.clip_by_global_norm(leaves, schedule.first)[0])
        peer = jax.jit(lambda leaves: optax.clip_by_global_norm(schedule.first).update(leaves, optax.EmptyState())[0])
        double = jax.jit(lambda leaves: [x * 0.5 for x in leaves])
        contenders = [
            Contender("gradclip.backends.jax", "ours", blocked(compiled, grads.leaves)),
            Contender(PEER, "peer", blocked(peer, grads.leaves)),
            Contender("multiply", "floor", blocked(double, grads.leaves)),
        ]

        def check(clipped: list[Any], most: float) -> Mapping[str, float]:
            return grads.errors(None, clipped, most)

        return Setup(contenders, schedule, check)

    return Row("JAX", "jit: clip_by_global_norm", gradients, "float32", case, build, (2, 1), missing=_JAX_MISSING)


def clip_eagerly(gradients: GradientSet, case: str, *budgets: Budget) -> Row:
    """Return the row of clipping outside of jit, where each operation is dispatched by itself."""

    def build(chosen: GradientSet) -> Setup:
        grads = Gradients(chosen)
        schedule = Schedule(global_schedule(grads.norm, case).first)
        ours: Any = _OPTAX

        def update(transformation: Transformation) -> Callable[[float], Any]:
            state = transformation.init(grads.leaves)
            return blocked(lambda: transformation.update(grads.leaves, state)[0])

        together = jnp.concatenate([x.reshape(-1) for x in grads.leaves])
        contenders = [
            Contender("gradclip.backends.optax", "ours", update(ours.clip_by_global_norm(schedule.first))),
            Contender(PEER, "peer", update(optax.clip_by_global_norm(schedule.first))),
            Contender("multiply", "floor", blocked(jax.jit(lambda x: x * 0.5), together)),
        ]

        def check(clipped: list[Any], most: float) -> Mapping[str, float]:
            return grads.errors(None, clipped, most)

        return Setup(contenders, schedule, check)

    return Row("JAX", "clip_by_global_norm", gradients, "float32", case, build, (2, 1), budgets, _OPTAX_MISSING)


def compiling(leaves: int, *, accelerator: bool = False) -> Row:
    """Return the row of the time that it takes to trace and compile clipping alone, for leaves of 64 elements.

    With ``accelerator``, the program is the one for accelerators, compiled for a CPU.
    """

    def build(chosen: GradientSet) -> Setup:
        grads = Gradients(chosen)
        schedule = Schedule(global_schedule(grads.norm, UNCLIPPED).first)

        def compiled(transformation: Transformation) -> Callable[[float], Any]:
            state = transformation.init(grads.leaves)

            def call(_: float) -> Any:
                jax.clear_caches()
                with _for_accelerators() if accelerator else nullcontext():
                    return jax.jit(lambda g: transformation.update(g, state)[0]).lower(grads.leaves).compile()

            return call

        ours: Any = _OPTAX
        contenders = [
            Contender("gradclip.backends.optax", "ours", compiled(ours.clip_by_global_norm(schedule.first))),
            Contender(PEER, "peer", compiled(optax.clip_by_global_norm(schedule.first))),
            Contender("multiply", "floor", compiled(optax.scale(0.5))),
        ]

        def check(step: Any, most: float) -> Mapping[str, float]:
            return grads.errors(None, step(grads.leaves), most)

        return Setup(contenders, schedule, check)

    name = "jit: compiling" + (", accelerators' way" if accelerator else "")
    rounds = 3 if leaves <= 1000 else 1  # optax takes minutes for 4,000
    gradients = GradientSet(f"{leaves:,} x 64", ((64,),) * leaves)
    budget = (Budget(PEER, 1.0),)
    return Row("JAX", name, gradients, "float32", "", build, (0, 0), budget, _OPTAX_MISSING, rounds=rounds)


def _for_accelerators() -> AbstractContextManager[Any]:
    """Return a context in which norms are computed on a CPU as they are on accelerators."""
    from gradclip.backends.jax._ops import JaxOps

    return patch.object(JaxOps, "_on_need", JaxOps._at_once)


def norm_only(gradients: GradientSet, *budgets: Budget) -> Row:
    """Return the row of the norm alone, under jit."""

    def build(chosen: GradientSet) -> Setup:
        grads = Gradients(chosen)
        ours: Any = _JAX
        contenders = [
            Contender("gradclip.backends.jax", "ours", blocked(jax.jit(ours.global_norm), grads.leaves)),
            Contender("optax.global_norm", "peer", blocked(jax.jit(optax.global_norm), grads.leaves)),
            *(Contender(name, "floor", blocked(one, grads.leaves)) for name, one in _reads()),
        ]

        def check(norm: Any, _: float) -> Mapping[str, float]:
            return {"norm": relative_error(float(norm), grads.norm)}

        return Setup(contenders, Schedule(math.inf), check)

    return Row("JAX", "jit: global_norm", gradients, "float32", "", build, (1, 0), budgets, _JAX_MISSING)


def _reads() -> Iterable[tuple[str, Callable[[list[Any]], Any]]]:
    yield "jnp.vdot", jax.jit(lambda leaves: [jnp.vdot(x, x) for x in leaves])
    yield "jnp.sum", jax.jit(lambda leaves: [jnp.sum(x) for x in leaves])


def rows() -> Iterable[Row]:
    """Return JAX's rows."""
    yield from steps_jax.rows()
    for case in (UNCLIPPED, CLIPPED):
        yield clip_eagerly(sets.HUNDRED_SMALL, case, Budget(PEER, 8.0))
    for gradients in (sets.GPT2_SMALL, sets.MLP):
        for case in (UNCLIPPED, CLIPPED):
            yield clip_only(gradients, case)
    yield norm_only(sets.ONE_LARGE)
    for leaves in (100, 400, 1000, 4000):
        yield compiling(leaves)
        yield compiling(leaves, accelerator=True)


def implementations() -> Iterable[Implementation]:
    """Return JAX's part in the accuracy table; through our adapter where there is one, else through the core."""
    import gradclip

    def converted(norm: Callable[[list[Any]], Any]) -> Callable[[list[NDArray]], float]:
        def run(leaves: list[NDArray]) -> float:
            with jax.enable_x64(_has_float64(leaves)):
                return float(norm([jnp.asarray(x) for x in leaves]))

        return run

    def clipped_by(clip: Callable[[list[Any], float], list[Any]]) -> Callable[[list[NDArray], float], list[NDArray]]:
        def run(leaves: list[NDArray], max_norm: float) -> list[NDArray]:
            with jax.enable_x64(_has_float64(leaves)):
                return [np.asarray(x) for x in clip([jnp.asarray(x) for x in leaves], max_norm)]

        return run

    def core(leaves: list[Any], max_norm: float) -> list[Any]:
        return gradclip.clip_by_global_norm(leaves, max_norm)[0]

    yield Implementation("gradclip, JAX", "ours", converted(gradclip.global_norm), clipped_by(core))
    if _JAX is not None:
        adapter = _JAX
        ours = clipped_by(lambda leaves, most: adapter.clip_by_global_norm(leaves, most)[0])
        yield Implementation("gradclip.backends.jax", "ours", converted(adapter.global_norm), ours, 1000)
    peer = clipped_by(lambda leaves, most: optax.clip_by_global_norm(most).update(leaves, optax.EmptyState())[0])
    yield Implementation("optax", "peer", converted(optax.global_norm), peer)


def _has_float64(leaves: list[NDArray]) -> bool:
    return any(x.dtype == np.float64 for x in leaves)  # without this, JAX would round them to float32


def versions() -> Mapping[str, str]:
    """Return the versions of JAX and optax, and the platform."""
    return {**machine.versions("jax", "jaxlib", "optax"), "jax platform": jax.default_backend()}
