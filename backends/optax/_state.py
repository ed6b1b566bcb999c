"""What a clipping transformation remembers of its last step, so that anyone can log it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]

from gradclip import _namespace as ns
from gradclip._types import Array


class ClipState(NamedTuple):
    """The state of a clipping transformation: 0-d arrays, on the device. Read them when you log, not every step.

    Parameters
    ----------
    norm : array
        The global norm of the last updates before clipping, float32 or, for float64 parameters, float64.
    coefficient : array
        What they were multiplied by: 1 if nothing was clipped. Of many coefficients, the smallest.
    clipped : array
        How many steps were clipped so far, int32; those whose norm was not finite are counted.
    step : array
        How many steps there were, int32: what a schedule is called with.
    """

    norm: Array
    coefficient: Array
    clipped: Array
    step: Array


def initial(params: Any) -> ClipState:
    """Return the state before the first step, for parameters of any dtypes."""
    dtypes = [x.dtype for x in jax.tree.leaves(params) if hasattr(x, "dtype")]
    dtype = jnp.float64 if any(ns.is_double(d) for d in dtypes) else jnp.float32
    zero = jnp.zeros((), dtype=jnp.int32)
    return ClipState(jnp.zeros((), dtype=dtype), jnp.ones((), dtype=dtype), zero, zero)


def following(state: ClipState, norm: Array, coefficient: Array, clipped: Array) -> ClipState:
    """Return the state after a step, of the same dtypes: loops and conditions want them to stay."""
    return ClipState(
        norm.astype(state.norm.dtype),
        coefficient.astype(state.coefficient.dtype),
        jnp.where(clipped, optax.safe_increment(state.clipped), state.clipped),
        optax.safe_increment(state.step),
    )
