"""JAX's rows with an optimizer's step under jit: clip + SGD and clip + Adam, with gradclip and with optax."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import frameworks, sets
from benchmarks.exact import relative_error, wide_norm
from benchmarks.row import CLIPPED, UNCLIPPED, Budget, Contender, Row, Schedule, Setup, global_schedule
from benchmarks.sets import GradientSet

PEER = "optax.clip_by_global_norm"
Transformation: TypeAlias = Any
"""An optax.GradientTransformation."""

_OPTAX, _MISSING = frameworks.adapter("optax")
_OPTIMIZERS: Mapping[str, Callable[[], Transformation]] = {
    "SGD": lambda: optax.sgd(1.0),  # of parameters that are zero, a step leaves the clipped gradients, negated
    "Adam": lambda: optax.adam(1e-3),
}

ready: Callable[[Any], Any] = jax.block_until_ready


class Gradients:
    """The leaves that all contenders work on, and their norm. They are not written."""

    def __init__(self, gradients: GradientSet, dtype: str = "float32") -> None:
        values = sets.values(gradients, dtype)
        self.norm = wide_norm(values)
        self.leaves = [jnp.array(x) for x in values]

    def errors(self, norm: Any, clipped: list[Any], max_norm: float) -> Mapping[str, float]:
        """Return the errors of the clipped leaves, and of the norm where there is one."""
        after = relative_error(wide_norm([np.asarray(x) for x in clipped]), min(self.norm, max_norm))
        return {"result": after} if norm is None else {"norm": relative_error(float(norm), self.norm), "result": after}


class Training:
    """Parameters and the state of an optimizer. Every step takes over those of the step before it.

    Their memory is reused, as in training.
    """

    def __init__(self, grads: list[Any], optimizer: Transformation) -> None:
        self._grads, self._optimizer = grads, optimizer
        self.restore()

    def restore(self) -> None:
        """Start again with parameters that are all zero."""
        parameters = [jnp.zeros_like(x) for x in self._grads]
        self._now = ready((parameters, self._optimizer.init(parameters)))

    def step(self, clip: Transformation) -> Callable[[float], Any]:
        """Return a contender: one step, which returns the parameters after it."""
        kept = clip.init(self._now[0])

        def update(now: Any, grads: list[Any]) -> Any:
            parameters, state = now
            updates, _ = clip.update(grads, kept, parameters)
            updates, state = self._optimizer.update(updates, state, parameters)
            return optax.apply_updates(parameters, updates), state

        compiled = jax.jit(update, donate_argnums=0)

        def call(_threshold: float) -> Any:
            self._now = ready(compiled(self._now, self._grads))
            return self._now[0]

        return call


def clip_and_step(gradients: GradientSet, case: str, name: str, *budgets: Budget, memory: bool = False) -> Row:
    """Return the row of clipping and a step of an optimizer under jit."""

    def build(chosen: GradientSet) -> Setup:
        grads = Gradients(chosen)
        schedule = Schedule(global_schedule(grads.norm, case).first)
        training = Training(grads.leaves, _OPTIMIZERS[name]())
        ours: Any = _OPTAX
        contenders = [
            Contender(
                f"gradclip.backends.optax + {name}", "ours", training.step(ours.clip_by_global_norm(schedule.first))
            ),
            Contender(f"{PEER} + {name}", "peer", training.step(optax.clip_by_global_norm(schedule.first))),
            Contender(f"{name} without clipping", "floor", training.step(optax.identity())),
        ]

        def check(updated: list[Any], most: float) -> Mapping[str, float]:
            return grads.errors(None, updated, most) if name == "SGD" else {}  # Adam's first step knows no norm

        return Setup(contenders, schedule, check, training.restore)

    operation = f"jit: clip + {name}"
    return Row("JAX", operation, gradients, "float32", case, build, (3, 1), budgets, _MISSING, memory)


def rows() -> Iterable[Row]:
    """Return the rows. Memory is measured for steps that reuse the memory of parameters and state."""
    for case in (UNCLIPPED, CLIPPED):
        yield clip_and_step(sets.GPT2_SMALL, case, "SGD", Budget(f"{PEER} + SGD", 1.03, "within"))
    for case in (UNCLIPPED, CLIPPED):
        yield clip_and_step(sets.GPT2_SMALL, case, "Adam", memory=case == CLIPPED)
