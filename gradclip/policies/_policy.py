"""``Policy``: what chooses the threshold of a step from the norms of the steps before it."""

from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from gradclip._types import AnyArray

State = TypeVar("State")


@runtime_checkable
class Policy(Protocol[State]):
    """A rule that chooses ``max_norm`` for each step. Policies are immutable; what they remember is in a state.

    A state is a NamedTuple of 0-d or small arrays in the namespace, on the device and of the dtype of the norms. No
    method reads a value of an array, so that a policy works under ``jax.jit`` and ``jax.lax.scan``, and on a GPU
    without a wait of the host. Norms may also be Python floats; then the numbers of a state are floats, and its
    histories are NumPy arrays.
    """

    skips: ClassVar[bool]
    """Whether a step whose norm exceeds ``max_norm``, or is NaN or inf, is skipped: neither gradients nor parameters
    change, nor anything that the optimizer remembers."""

    per_leaf: ClassVar[bool]
    """Whether norms and thresholds are of shape ``(number of leaves,)``, one for each leaf; else they are 0-d."""

    def init(self, like: AnyArray) -> State:
        """Return the state before the first step.

        Parameters
        ----------
        like : array or float
            An array of the shape, dtype, namespace and device of the norms; its values do not matter.
        """
        ...

    def update(self, state: State, norm: AnyArray) -> tuple[AnyArray, State]:
        """Return the threshold for a norm, and the next state.

        Parameters
        ----------
        state : NamedTuple
            The state that `init` or the last call returned. It is not changed.
        norm : array or float
            The norm before clipping, without the loss scale. If it is NaN, inf or 0, it does not enter the state.

        Returns
        -------
        max_norm : array or float
            The threshold for this very norm; inf if it is not clipped.
        state : NamedTuple
            The next state.
        """
        ...


AnyPolicy = Policy[Any]
"""A policy with a state of any type."""
