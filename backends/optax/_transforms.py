"""optax's clipping transformations, with the same names and signatures."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax.numpy as jnp
import optax

from gradclip import _checks
from gradclip._adaptive import UnitRule
from gradclip._decision import Rule
from gradclip._nonfinite import refuse_nonfinite
from gradclip._types import AnyScalar, Axes, Nonfinite, Scalar
from gradclip.backends import jax as gj
from gradclip.backends.jax._adaptive import beside
from gradclip.backends.jax._global import limit
from gradclip.backends.jax._mesh import AxisName, names
from gradclip.backends.jax._tree import flatten, refuse_local, split
from gradclip.backends.optax import _compute
from gradclip.backends.optax._policy import clipping
from gradclip.backends.optax._state import ClipState, PolicyState, current, initial, initial_of_policy
from gradclip.policies._policy import AnyPolicy

Schedule: TypeAlias = Callable[[Any], Any]


def clip(max_delta: Scalar) -> optax.GradientTransformation:
    """Clip each element of the updates into ``[-max_delta, max_delta]``: `optax.clip`.

    Parameters
    ----------
    max_delta : float or 0-d array
        The largest absolute value of an element after clipping, at least 0.

    Returns
    -------
    optax.GradientTransformation
        Its state is empty. NaN stays NaN, ±inf becomes the bound.

    Raises
    ------
    TypeError
        If ``max_delta`` is not a number; from ``update``, if an update is complex or no floating-point array.
    ValueError
        If ``max_delta`` is negative or NaN.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends import optax as gradclip
    >>> tx = gradclip.clip(1.0)
    >>> tx.update({"w": jnp.array([-3.0, 0.5])}, tx.init({}))[0]
    {'w': Array([-1. ,  0.5], dtype=float32)}
    """
    _checks.threshold(max_delta, "max_delta", optional=False)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return gj.clip_by_value(updates, max_delta), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)  # noqa: ARG005  # optax's name


def clip_by_global_norm(
    max_norm: Scalar | Schedule | AnyPolicy | None, *, nonfinite: Nonfinite = "propagate", axis_name: AxisName = None
) -> optax.GradientTransformation:
    """Clip updates by their global norm: `optax.clip_by_global_norm`, right in every dtype and range.

    Parameters
    ----------
    max_norm : float, 0-d array, schedule, Policy or None
        The largest norm after clipping, at least 0. A schedule is called with the number of earlier steps. A policy of
        `gradclip.policies` chooses it at each step from the norms before; `AdaGC` and `EmaClip` clip each leaf by its
        own norm. With None or inf, nothing is clipped and only the norm is computed.
    nonfinite : {"propagate", "error", "zero"}
        What happens to updates with NaN or inf, as in `gradclip.backends.jax.clip_by_global_norm`.
    axis_name : str, tuple of str or None
        In ``shard_map`` and ``pmap``: the mesh axes that the updates are split over; (): each device clips its part for
        itself.

    Returns
    -------
    optax.GradientTransformation
        Its state is a `ClipState`: the last norm and coefficient, and the number of clipped steps. With a policy it is
        a `PolicyState`, which also has the last threshold and what the policy remembers. If ``update`` gets None or
        optax's own state, which is empty, it begins with a new state.

    Raises
    ------
    TypeError
        If ``max_norm`` is no number, schedule or policy; from ``update``, if an update is no floating-point array.
    ValueError
        If ``max_norm`` is negative or NaN or a policy that skips steps (see `skip_steps`), or ``nonfinite`` an unknown
        name; from ``update``, if the state is that of another policy or of another number of leaves, or, in
        ``shard_map``, if an update varies over mesh axes and ``axis_name`` is None.
    NonFiniteError
        From ``update`` with ``nonfinite="error"``, if an update is NaN or inf.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
       arXiv:1211.5063.

    Examples
    --------
    >>> import jax.numpy as jnp, optax
    >>> from gradclip.backends import optax as gradclip
    >>> tx = optax.chain(gradclip.clip_by_global_norm(2.5), optax.sgd(1.0))
    >>> params = jnp.zeros(2)
    >>> updates, state = tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)
    >>> updates, state[0].norm, state[0].coefficient, state[0].clipped
    (Array([-1.5, -2. ], dtype=float32), Array(5., dtype=float32), Array(0.5, dtype=float32), Array(1, dtype=int32))

    With a policy, each step has a threshold of its own:

    >>> from gradclip.policies import ZClip
    >>> tx = gradclip.clip_by_global_norm(ZClip(warmup_steps=3, max_norm=None))
    >>> state = tx.init(params)
    >>> for norm in [1.0, 1.2, 0.8, 9.0]:
    ...     updates, state = tx.update(jnp.array([norm, 0.0]), state)
    ...     print(state.max_norm.round(3), updates.round(3))
    inf [1. 0.]
    inf [1.2 0. ]
    inf [0.8 0. ]
    1.021 [1.021 0.   ]
    """
    policy = clipping(max_norm)
    rule = Rule(None if policy is not None or callable(max_norm) else max_norm, 2.0, nonfinite, 1.0, 0.0)
    axes = names(axis_name)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        parts = split(updates, "updates")
        refuse_local(axis_name, parts.arrays, "updates")
        if rule.nonfinite == "error":
            total = gj.norm_partial(parts.arrays, axis_name=axes).total
            refuse_nonfinite(flatten(parts.arrays, "updates"), jnp.isfinite(total), rule.ord)
        options: dict[str, Any] = {"nonfinite": "zero" if rule.zero else "propagate", "axes": axes}
        if policy is None:
            before = current(state, ClipState, lambda: initial(parts.arrays, axes))
            most = limit(_at(max_norm, before, "max_norm"))
            clipped, after = _compute.by_global_norm(parts.arrays, before, most, **options)
        else:
            begun = current(state, PolicyState, partial(initial_of_policy, policy, parts.arrays, axes))
            clipped, after = _compute.by_policy(parts.arrays, begun, policy=policy, **options)
        return parts.restore(clipped), after

    def init(params: Any) -> ClipState | PolicyState:
        return initial(params, axes) if policy is None else initial_of_policy(policy, params, axes)

    return optax.GradientTransformation(init, update)


def clip_by_block_rms(
    threshold: Scalar | Schedule | None, *, axis_name: AxisName = None
) -> optax.GradientTransformation:
    """Clip each leaf of the updates by its root mean square: `optax.clip_by_block_rms`.

    Parameters
    ----------
    threshold : float, 0-d array, schedule or None
        The largest root mean square of a leaf after clipping, at least 0.
    axis_name : str, tuple of str or None
        As for `clip_by_global_norm`: the root mean squares are those of the whole leaves.

    Returns
    -------
    optax.GradientTransformation
        Its state is a `ClipState`, with the smallest coefficient of all leaves.

    Raises
    ------
    TypeError
        If ``threshold`` is neither a number nor a schedule; from ``update``, if an update is no floating-point array.
    ValueError
        If ``threshold`` is negative or NaN; from ``update``, in ``shard_map``, as for `clip_by_global_norm`.

    References
    ----------
    .. [1] N. Shazeer, M. Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018,
       arXiv:1804.04235, section 6.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends import optax as gradclip
    >>> tx = gradclip.clip_by_block_rms(1.0)
    >>> tx.update([jnp.array([2.0, -2.0])], tx.init(None))[0]
    [Array([ 1., -1.], dtype=float32)]
    """
    if not callable(threshold):
        _checks.threshold(threshold, "threshold")
    axes = names(axis_name)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        parts = split(updates, "updates")
        refuse_local(axis_name, parts.arrays, "updates")
        before = current(state, ClipState, lambda: initial(parts.arrays, axes))
        most = limit(_at(threshold, before, "threshold"))
        clipped, after = _compute.by_block_rms(parts.arrays, before, most, axes=axes)
        return parts.restore(clipped), after

    return optax.GradientTransformation(lambda params: initial(params, axes), update)


def adaptive_grad_clip(
    clipping: Scalar | Schedule,
    eps: Scalar = 1e-3,
    axis: int | Axes | None = None,
    *,
    axis_name: AxisName = None,
) -> optax.GradientTransformation:
    """Clip updates, unit by unit, to ``clipping`` times the norm of the parameters: `optax.adaptive_grad_clip`.

    Parameters
    ----------
    clipping : float, 0-d array or schedule
        The largest ratio of a unit's update norm to its parameter norm, at least 0.
    eps : float or 0-d array
        Smaller parameter norms count as ``eps``, so that parameters that are zero can change.
    axis : int, tuple of int or None
        The axes of a unit; None for those of the usual layouts, as in optax.
    axis_name : str, tuple of str or None
        In ``shard_map`` and ``pmap``: the mesh axes that units are split over; () if each device has whole units.

    Returns
    -------
    optax.GradientTransformation
        Its state is a `ClipState`, with the smallest coefficient of all units. ``update`` requires ``params``.

    Raises
    ------
    TypeError
        If an argument is not a number; from ``update``, if an update is no floating-point array.
    ValueError
        If an argument is out of range; from ``update``, without ``params`` or, in ``shard_map``, as for
        `clip_by_global_norm`.

    References
    ----------
    .. [1] A. Brock, S. De, S. L. Smith, K. Simonyan, "High-Performance Large-Scale Image Recognition Without
       Normalization", ICML 2021, arXiv:2102.06171.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gradclip.backends import optax as gradclip
    >>> tx = gradclip.adaptive_grad_clip(0.5)
    >>> params = jnp.array([0.0, 5.0])
    >>> tx.update(jnp.array([3.0, 4.0]), tx.init(params), params)[0]
    Array([1.5, 2. ], dtype=float32)
    """
    rule = UnitRule(1.0 if callable(clipping) else clipping, eps, axis)
    axes = tuple(axis) if isinstance(axis, list | tuple) else axis
    over = names(axis_name)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError(
                "adaptive_grad_clip got params=None, expected the parameters, whose norms it clips by; "
                "call update(updates, state, params)"
            )
        parts = split(updates, "updates")
        refuse_local(axis_name, parts.arrays, "updates")
        weights = split(beside(parts.arrays, params), "params").arrays
        before = current(state, ClipState, lambda: initial(parts.arrays, over))
        ratio = limit(_at(clipping, before, "clipping"))
        clipped, after = _compute.adaptive(parts.arrays, before, weights, ratio, rule.eps, axis=axes, over=over)
        return parts.restore(clipped), after

    return optax.GradientTransformation(lambda params: initial(params, over), update)


def _at(threshold: AnyScalar | Schedule | None, state: ClipState, name: str) -> AnyScalar | None:
    """Return the checked threshold at this step."""
    return _checks.threshold(threshold(state.step) if callable(threshold) else threshold, name)
