"""Skipped steps: a wrapper of a transformation that changes nothing where a policy says so."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradclip._types import AnyArray
from gradclip.backends.jax._eager import compiled
from gradclip.backends.jax._mesh import AxisName, names
from gradclip.backends.jax._tree import is_float0, refuse_local, split
from gradclip.backends.optax import _compute
from gradclip.backends.optax._policy import skipping
from gradclip.backends.optax._state import SkipState, initial_of_skips
from gradclip.policies._policy import AnyPolicy


def skip_steps(
    inner: optax.GradientTransformation, policy: AnyPolicy, *, axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    """Skip steps whose updates have a norm that is too large, or NaN or inf, as a policy says.

    A skipped step changes nothing: its updates are zeros, and the state of ``inner``, with its momentum, its counts and
    its schedules, stays as it was, bit for bit. Updates that are zeroed before an optimizer would still move momentum
    and apply weight decay. So wrap the whole optimizer, clipping included.

    Parameters
    ----------
    inner : optax.GradientTransformation
        The optimizer, or a chain. Extra arguments of ``update`` are passed to it.
    policy : Policy
        One that skips: ``SkipStep(threshold=10.0)``, ``SkipStep(sigma=6, window=128)``, or another policy whose
        ``skips`` is true.
    axis_name : str, tuple of str or None
        In ``shard_map`` and ``pmap``: the mesh axes that the updates are split over, as for `clip_by_global_norm`. Then
        all devices skip the same steps; with (), each its own.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        Its state is a `SkipState`: the last norm and threshold, whether the last step was skipped, and how many were.

    Raises
    ------
    TypeError
        If ``policy`` is no policy; from ``update``, if an update is an array of integers, or the state is not a
        `SkipState`.
    ValueError
        If ``policy`` clips and does not skip; from ``update``, if ``inner`` does not keep the structure of its state,
        or the state is that of another policy, or, in ``shard_map``, as for `clip_by_global_norm`.

    See Also
    --------
    optax.apply_if_finite : skips updates with NaN or inf, up to a number of them in a row.

    Notes
    -----
    The norm is that of the updates as they come in. It is compared on the device, and the host does not wait: ``inner``
    runs at every step, on zeros in place of updates that are skipped, and its results are taken or not. If steps are
    skipped one after the other, the model stands still; look at ``skipped`` in the state. Updates that are None, float0
    or masked pass through to ``inner``.

    References
    ----------
    .. [1] Megatron-LM, ``OptimizerConfig.grad_norm_skip_threshold``; OLMo-core,
       ``olmo_core/optim/skip_step_optimizer.py``.

    Examples
    --------
    >>> import jax.numpy as jnp, optax
    >>> from gradclip.backends import optax as gradclip
    >>> from gradclip.policies import SkipStep
    >>> tx = gradclip.skip_steps(optax.adamw(0.1), SkipStep(threshold=10.0))
    >>> params = jnp.array([1.0, 2.0])
    >>> updates, state = tx.update(jnp.array([30.0, 40.0]), tx.init(params), params)
    >>> updates, state.norm, state.max_norm, int(state.skipped), int(state.inner_state[0].count)
    (Array([0., 0.], dtype=float32), Array(50., dtype=float32), Array(10., dtype=float32), 1, 0)
    """
    chosen, axes = skipping(policy), names(axis_name)
    whole = optax.with_extra_args_support(inner)

    def init(params: Any) -> SkipState:
        return initial_of_skips(chosen, params, whole.init(params), axes)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, SkipState]:
        parts, before = split(updates, "updates"), _checked(state)
        refuse_local(axis_name, parts.arrays, "updates")
        outer = before._replace(inner_state=None)
        arrays, after = _compute.with_skip(parts.arrays, outer, policy=chosen, axes=axes)
        moved, inner_state = whole.update(parts.restore(arrays), before.inner_state, params, **extra_args)
        skipped = after.last_skipped
        unchanged = _where(skipped, before.inner_state, inner_state)
        return _where(skipped, None, moved), after._replace(inner_state=unchanged)

    return optax.GradientTransformationExtraArgs(init, update)


def _checked(state: Any) -> SkipState:
    if isinstance(state, SkipState):
        return state
    raise TypeError(
        f"state is {_named(state)}, expected the SkipState that init() or update() returned; to go on from a state of "
        "the inner transformation, pass tx.init(params)._replace(inner_state=state)"
    )


def _named(state: Any) -> str:
    return "None" if state is None else f"of type {type(state).__name__}"


def _where(skipped: AnyArray, before: Any, after: Any) -> Any:
    """Return a pytree as it was ``before`` if the step is skipped, else as it is ``after``; zeros for no pytree.

    Leaves that are no arrays are those of ``after``.
    """
    new, treedef = _flat(after)
    at = [i for i, x in enumerate(new) if _is_array(x)]
    some = [new[i] for i in at]
    if before is None:
        chosen = _zeros_where(some, skipped)
    else:
        old, old_treedef = _flat(before)
        if old_treedef != treedef:
            raise ValueError(
                f"the state of the inner transformation had the structure {old_treedef} before the step and has "
                f"{treedef} after it, expected the same, so that the step can be skipped; begin with the state that "
                "tx.init(params) returns"
            )
        chosen = _before_where(some, [old[i] for i in at], skipped)
    for i, x in zip(at, chosen, strict=True):
        new[i] = x
    return jax.tree.unflatten(treedef, new)


def _flat(tree: Any) -> tuple[list[Any], Any]:
    return jax.tree.flatten(tree)


@compiled()
def _zeros_where(after: Sequence[AnyArray], skipped: AnyArray) -> list[AnyArray]:
    return [jnp.where(skipped, jnp.zeros_like(x), x) for x in after]


@compiled()
def _before_where(after: Sequence[AnyArray], before: Sequence[AnyArray], skipped: AnyArray) -> list[AnyArray]:
    """Return arrays of the dtypes of ``after``."""
    pairs = zip(before, after, strict=True)
    return [jnp.where(skipped, x if x.dtype == y.dtype else jnp.astype(x, y.dtype), y) for x, y in pairs]


def _is_array(x: Any) -> bool:
    return isinstance(x, int | float | complex) or (hasattr(x, "dtype") and not is_float0(x))
