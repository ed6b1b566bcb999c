"""``Schedule``: a threshold that is a function of the step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from gradclip import _namespace as ns
from gradclip._coefficient import at_least_zero
from gradclip._types import AnyArray
from gradclip._words import kind
from gradclip.policies._numbers import converted, filled, namespace


class ScheduleState(NamedTuple):
    """The state of `Schedule`.

    Parameters
    ----------
    step : array or int
        The number of steps taken, int32.
    """

    step: AnyArray


@dataclass(frozen=True)
class Schedule:
    """A threshold that is a function of the step, as schedules of the learning rate are.

    Parameters
    ----------
    schedule : callable
        Takes the number of steps taken, 0 at the first, and returns ``max_norm``, a number or a 0-d array. Under
        ``jax.jit`` the step is traced, so the function must not branch on it; optax's schedules are such functions.
        A policy can be pickled if this function can.

    Raises
    ------
    TypeError
        If ``schedule`` is not callable.

    Notes
    -----
    Each step counts, also one whose norm is NaN or inf. A negative threshold counts as 0.

    Examples
    --------
    >>> from gradclip.policies import Schedule
    >>> policy = Schedule(lambda step: 10.0 / (1 + step))
    >>> max_norm, state = policy.update(policy.init(0.0), 7.0)
    >>> max_norm, state
    (10.0, ScheduleState(step=1))
    """

    schedule: Callable[[Any], Any]

    skips: ClassVar[bool] = False
    per_leaf: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not callable(self.schedule):
            raise TypeError(
                f"schedule is {kind(self.schedule)}, expected a function from the step to max_norm; for a threshold "
                "that stays the same, use Fixed(max_norm)"
            )

    def init(self, like: AnyArray) -> ScheduleState:
        """Return the state before the first step."""
        if isinstance(like, float):
            return ScheduleState(0)
        xp = namespace(like)
        return ScheduleState(xp.zeros((), dtype=xp.int32, device=ns.device(like)))

    def update(self, state: ScheduleState, norm: AnyArray) -> tuple[AnyArray, ScheduleState]:
        """Return the threshold for a norm, and the next state."""
        value = self.schedule(state.step)
        if isinstance(norm, float) or not ns.is_array(value):
            max_norm = filled(norm, at_least_zero(float(value)))
        else:
            max_norm = at_least_zero(converted(value, norm))
        return max_norm, ScheduleState(state.step + 1)
