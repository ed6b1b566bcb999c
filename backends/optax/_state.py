"""The states of clipping transformations: what was done in the last step, and what a policy remembers."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import optax

from gradclip import _dtypes
from gradclip._types import AnyArray
from gradclip._words import a
from gradclip.backends.jax._mesh import vary, varying
from gradclip.backends.jax._tree import is_float0
from gradclip.policies._policy import AnyPolicy


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


class PolicyState(NamedTuple):
    """The state of a clipping transformation whose threshold a policy chooses: the fields of `ClipState` and two more.

    Parameters
    ----------
    norm, coefficient, clipped, step : array
        As in `ClipState`.
    max_norm : array
        The threshold of the last step, of the dtype of ``norm``: 0-d, or one for each leaf if the policy has these. inf
        if the policy did not clip, and before the first step.
    policy : NamedTuple of arrays
        What the policy remembers. NaN and inf never enter it.
    """

    norm: jax.Array
    coefficient: jax.Array
    clipped: jax.Array
    step: jax.Array
    max_norm: jax.Array
    policy: Any


class SkipState(NamedTuple):
    """The state of `skip_steps`: what was decided in the last step, and the state of the inner transformation.

    Parameters
    ----------
    norm : array
        The global norm of the last updates, as in `ClipState`.
    max_norm : array
        The threshold above which the policy skipped the last step, as in `PolicyState`.
    last_skipped : array
        Whether the last step was skipped: 0-d, boolean.
    skipped : array
        The number of steps that were skipped, int32.
    step : array
        The number of steps, those included that were skipped, int32.
    policy : NamedTuple of arrays
        What the policy remembers. Norms of skipped steps may enter it, but NaN and inf never do.
    inner_state : pytree
        The state of the inner transformation, as it was after the last step that was not skipped.
    """

    norm: jax.Array
    max_norm: jax.Array
    last_skipped: jax.Array
    skipped: jax.Array
    step: jax.Array
    policy: Any
    inner_state: Any


State = TypeVar("State", ClipState, PolicyState, SkipState)


def initial(params: Any, axes: tuple[str, ...] = ()) -> ClipState:
    """Return the state before the first step; ``axes`` are the mesh axes over which norms will be merged.

    Its arrays share no memory, so that all can be donated. Their types are those of later states, as loops require.
    """
    dtype, _, local = _about(params, axes)
    return ClipState(
        norm=vary(jnp.zeros((), dtype=dtype), local),
        coefficient=vary(jnp.ones((), dtype=dtype), local),
        clipped=vary(jnp.zeros((), dtype=jnp.int32), local),
        step=jnp.zeros((), dtype=jnp.int32),
    )


def initial_of_policy(policy: AnyPolicy, params: Any, axes: tuple[str, ...] = ()) -> PolicyState:
    """Return the state before the first step of a transformation whose threshold a policy chooses, as `initial`."""
    max_norm, remembered = _begun(policy, params, axes)
    return PolicyState(*initial(params, axes), max_norm=max_norm, policy=remembered)


def initial_of_skips(policy: AnyPolicy, params: Any, inner_state: Any, axes: tuple[str, ...] = ()) -> SkipState:
    """Return the state before the first step of `skip_steps`, as `initial`.

    Where devices skip steps of their own, because norms are not merged over all axes, so are their inner states.
    """
    max_norm, remembered = _begun(policy, params, axes)
    norm, _, skipped, step = initial(params, axes)
    last = vary(jnp.zeros((), dtype=bool), varying(norm))
    own = jax.tree.map(lambda x: vary(x, varying(norm)), inner_state) if varying(norm) else inner_state
    return SkipState(norm, max_norm, last, skipped, step, remembered, own)


def current(state: Any, kind: type[State], begin: Callable[[], State]) -> State:
    """Return the state for a step: the given one, or a new one for None and for optax's own state, which is empty.

    Raises
    ------
    TypeError
        If it is another kind of state.
    """
    if isinstance(state, kind):
        return state
    if not jax.tree.leaves(state):
        return begin()
    raise TypeError(
        f"state is {a(type(state).__name__)}, expected the {kind.__name__} that init() or update() returned, or None "
        "or optax.EmptyState() to begin anew; restore a checkpoint into the structure of tx.init(params)"
    )


def following(state: ClipState, norm: AnyArray, coefficient: AnyArray, clipped: AnyArray) -> ClipState:
    """Return the state after a step. Its types are the same, as loops and conditions require."""
    after = ClipState(
        norm,
        coefficient,
        counted(state.clipped, clipped),
        cast("jax.Array", optax.safe_increment(state.step)),
    )
    return cast("ClipState", of_the_types(state, after))


def counted(count: AnyArray, happened: AnyArray) -> AnyArray:
    """Return a count, one larger if something happened; it does not overflow."""
    return jnp.where(happened, optax.safe_increment(count), count)


def of_the_types(before: Any, after: Any) -> Any:
    """Return ``after`` with the dtypes of ``before``, varying over the same mesh axes, as loops require."""
    return jax.tree.map(lambda old, new: vary(jnp.asarray(new).astype(old.dtype), varying(old)), before, after)


def of_dtype(tree: Any, dtype: Any) -> Any:
    """Return a pytree in which floating-point arrays have another dtype."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype) if _dtypes.is_floating(x.dtype) else x, tree)


def check_policy_state(policy: AnyPolicy, state: Any, norms: AnyArray) -> None:
    """Check that what a policy remembers is for norms of this shape and dtype, and from a policy of this kind.

    Raises
    ------
    ValueError
        If it is not.
    """
    fresh = jax.eval_shape(policy.init, norms)
    structures: list[Any] = [jax.tree.structure(x) for x in (fresh, state)]
    if structures[0] != structures[1]:
        raise ValueError(
            f"state has {a(type(state).__name__)} as what its policy remembers, expected {a(type(fresh).__name__)} for "
            f"{policy!r}; restore a checkpoint with the policy that it was saved with, or begin anew with tx.init"
        )
    for new, old in zip(jax.tree.leaves(fresh), jax.tree.leaves(state), strict=True):
        if tuple(new.shape) != tuple(old.shape):
            remedy = (
                "call init with all parameters, and pass zeros for updates that are missing in this step"
                if policy.per_leaf
                else "use the window that it was saved with"
            )
            raise ValueError(
                f"what {policy!r} remembers has shape {tuple(old.shape)}, expected {tuple(new.shape)} in this step; "
                f"{remedy}"
            )


def _begun(policy: AnyPolicy, params: Any, axes: tuple[str, ...]) -> tuple[AnyArray, Any]:
    """Return inf in the shape of a policy's thresholds, and its first state, in arrays that share no memory."""
    dtype, n, local = _about(params, axes)
    like = jnp.zeros((n,) if policy.per_leaf else (), dtype=dtype)
    first = jax.tree.map(lambda x: vary(jnp.array(x, dtype=jnp.result_type(x)), local), policy.init(like))
    return vary(jnp.full_like(like, jnp.inf), local), first


def _about(params: Any, axes: tuple[str, ...]) -> tuple[Any, int, frozenset[str]]:
    """Return the dtype of norms, how many leaves have gradients, and the mesh axes over which norms will vary."""
    leaves = [x for x in jax.tree.leaves(params) if hasattr(x, "dtype") and not is_float0(x)]
    dtype = jnp.float64 if any(_dtypes.is_double(x.dtype) for x in leaves) else jnp.float32
    local = frozenset[str]().union(*map(varying, leaves)) - frozenset(axes)
    return dtype, sum(_dtypes.is_floating(x.dtype) for x in leaves), local
