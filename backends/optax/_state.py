"""What a clipping transformation remembers of its last step, so that anyone can log it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]

from gradclip import _namespace as ns
from gradclip._types import Array
from gradclip._words import a
from gradclip.backends.jax._mesh import vary, varying


class ClipState(NamedTuple):
    """The state of a clipping transformation: 0-d arrays, on the device. Read them when you log, not every step.

    Parameters
    ----------
    norm : array
        The global norm of the last updates before clipping, float32 or, for float64 parameters, float64.
    coefficient : array
        What they were multiplied by: 1 if nothing was clipped, 0 if they became zero. Of many coefficients, the
        smallest. It is right where the norm overflows to inf, too.
    clipped : array
        How many steps changed the updates so far, int32.
    step : array
        How many steps there were, int32: what a schedule is called with.
    """

    norm: Array
    coefficient: Array
    clipped: Array
    step: Array


def initial(params: Any, axes: tuple[str, ...] = ()) -> ClipState:
    """Return the state before the first step, for parameters of any dtypes, whose norm is merged over mesh ``axes``.

    Each of its arrays is one of its own, so that all can be donated, and of the type that it keeps in a loop.
    """
    leaves = [x for x in jax.tree.leaves(params) if hasattr(x, "dtype")]
    dtype = jnp.float64 if any(ns.is_double(x.dtype) for x in leaves) else jnp.float32
    local = frozenset[str]().union(*map(varying, leaves)) - frozenset(axes)
    return ClipState(
        norm=vary(jnp.zeros((), dtype=dtype), local),
        coefficient=vary(jnp.ones((), dtype=dtype), local),
        clipped=vary(jnp.zeros((), dtype=jnp.int32), local),
        step=jnp.zeros((), dtype=jnp.int32),
    )


def current(state: Any, updates: Any, axes: tuple[str, ...] = ()) -> ClipState:
    """Return the state that a step begins with: a new one where there is none, or optax's own, which is empty.

    Raises
    ------
    TypeError
        If it is the state of something else.
    """
    if isinstance(state, ClipState):
        return state
    if not jax.tree.leaves(state):
        return initial(updates, axes)
    raise TypeError(
        f"state is {a(type(state).__name__)}, expected the ClipState that init() or update() returned, or None "
        "or optax.EmptyState() to begin anew; restore a checkpoint into the structure of tx.init(params)"
    )


def following(state: ClipState, norm: Array, coefficient: Array, clipped: Array) -> ClipState:
    """Return the state after a step, of the same types: loops and conditions want them to stay."""
    after = ClipState(
        norm.astype(state.norm.dtype),
        coefficient.astype(state.coefficient.dtype),
        jnp.where(clipped, optax.safe_increment(state.clipped), state.clipped),
        optax.safe_increment(state.step),
    )
    return ClipState(*(vary(new, varying(old)) for new, old in zip(after, state, strict=True)))
