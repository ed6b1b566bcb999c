"""The state of a clipping transformation: what it did in its last step."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from gradclip import _dtypes
from gradclip._types import AnyArray
from gradclip._words import a
from gradclip.backends.jax._mesh import vary, varying


class ClipState(NamedTuple):
    """The state of a clipping transformation: 0-d arrays on the device. To read one waits for the device.

    Parameters
    ----------
    norm : array
        The global norm of the last updates before clipping, float32 or, for float64 parameters, float64.
    coefficient : array
        What the last updates were multiplied by: 1 if nothing was clipped, 0 if they became zero; the smallest if there
        are several. It is right even if the norm overflows to inf.
    clipped : array
        The number of steps that changed the updates, int32.
    step : array
        The number of steps, int32. A schedule is called with it.
    """

    norm: jax.Array
    coefficient: jax.Array
    clipped: jax.Array
    step: jax.Array


def initial(params: Any, axes: tuple[str, ...] = ()) -> ClipState:
    """Return the state before the first step; ``axes`` are the mesh axes over which norms will be merged.

    Its arrays share no memory, so that all can be donated. Their types are those of later states, as loops require.
    """
    leaves = [x for x in jax.tree.leaves(params) if hasattr(x, "dtype")]
    dtype = jnp.float64 if any(_dtypes.is_double(x.dtype) for x in leaves) else jnp.float32
    local = frozenset[str]().union(*map(varying, leaves)) - frozenset(axes)
    return ClipState(
        norm=vary(jnp.zeros((), dtype=dtype), local),
        coefficient=vary(jnp.ones((), dtype=dtype), local),
        clipped=vary(jnp.zeros((), dtype=jnp.int32), local),
        step=jnp.zeros((), dtype=jnp.int32),
    )


def current(state: Any, updates: Any, axes: tuple[str, ...] = ()) -> ClipState:
    """Return the state for a step: the given one, or a new one for None and for optax's own state, which is empty.

    Raises
    ------
    TypeError
        If it is another kind of state.
    """
    if isinstance(state, ClipState):
        return state
    if not jax.tree.leaves(state):
        return initial(updates, axes)
    raise TypeError(
        f"state is {a(type(state).__name__)}, expected the ClipState that init() or update() returned, or None "
        "or optax.EmptyState() to begin anew; restore a checkpoint into the structure of tx.init(params)"
    )


def following(state: ClipState, norm: AnyArray, coefficient: AnyArray, clipped: AnyArray) -> ClipState:
    """Return the state after a step. Its types are the same, as loops and conditions require."""
    after = ClipState(
        norm.astype(state.norm.dtype),
        coefficient.astype(state.coefficient.dtype),
        jnp.where(clipped, optax.safe_increment(state.clipped), state.clipped),
        cast("jax.Array", optax.safe_increment(state.step)),
    )
    return ClipState(*(vary(new, varying(old)) for new, old in zip(after, state, strict=True)))
