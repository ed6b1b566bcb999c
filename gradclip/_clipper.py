"""``Clipper``: clipping with a policy, for training loops that hold gradients in their own hands."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from gradclip._by_policy import coefficients_of, decide_by_policy
from gradclip._calls import quiet
from gradclip._coefficient import Coefficient
from gradclip._containers import Containers
from gradclip._decision import Decision, Rule
from gradclip._tree import Leaves
from gradclip._types import Array, Nonfinite, Scalar, Tree
from gradclip._words import short
from gradclip.policies._as_policy import as_policy, saved
from gradclip.policies._policy import AnyPolicy


class Clipper:
    """Clips gradients by a threshold that a policy chooses at each step, and remembers the policy's state.

    ``clipper(grads)`` returns new arrays and the norm; ``clipper.clip_(grads)`` writes in place and returns the norm.
    What was decided at the last step can be read: `norm`, `max_norm`, `coefficient`, `clipped` and `skipped`.

    Parameters
    ----------
    policy : Policy or float
        One of `gradclip.policies`, or an object with the same methods; a number is `Fixed`.
    ord : float
        The order of the norm, greater than 0, or ``math.inf``.
    nonfinite : {"propagate", "error", "zero"}
        What to do if a gradient is NaN or inf, as for `clip_by_global_norm`. Whatever it is, such a norm does not enter
        the policy's state.
    eps : float
        Added to the norm in the denominator, at least 0.

    Raises
    ------
    TypeError
        If ``policy`` is no policy, or another argument is not a number.
    ValueError
        If an argument is out of its range.

    Notes
    -----
    On a host, the state is made of Python floats, and an update of `ZClip` takes about 3 µs. On a device, it is made of
    arrays there, and the host does not wait for them. A clipper is not for functions that are traced: under ``jax.jit``
    call ``policy.update`` with the norm, and clip with the array that it returns.

    Policies that skip (`SkipStep`) leave gradients as they are: zeros would still move momentum and apply weight decay.
    The loop has to leave out the step: ``if clipper.skipped: continue``. A loop that never asks gets a RuntimeError at
    its second step.

    Functions in the list ``observers`` are called with the clipper after each clipping, as `gradclip.monitor` does.
    Copies and pickles of a clipper have the state and no observers.

    See Also
    --------
    gradclip.backends.torch.attach : does this for an optimizer of PyTorch.
    gradclip.backends.optax.clip_by_global_norm : does this for optax.

    Examples
    --------
    >>> import numpy as np, gradclip
    >>> from gradclip.policies import ZClip
    >>> clipper = gradclip.Clipper(ZClip(max_norm=1.0))
    >>> grads, norm = clipper({"w": np.array([3.0, 4.0])})
    >>> grads, norm
    ({'w': array([0.6, 0.8])}, array(5.))
    >>> clipper.max_norm, round(clipper.coefficient, 3), clipper.clipped, clipper.skipped
    (1.0, 0.2, True, False)
    >>> clipper.state
    ZClipState(count=1.0, mean=5.0, std=0.0)

    To go on later, save ``state_dict()`` beside the parameters:

    >>> resumed = gradclip.Clipper(ZClip(max_norm=1.0))
    >>> resumed.load_state_dict(clipper.state_dict())
    >>> _ = resumed({"w": np.array([3.0, 4.0])})
    >>> resumed.state
    ZClipState(count=2.0, mean=5.0, std=0.0)
    """

    _containers: ClassVar[Containers[Any]] = Containers()

    def __init__(
        self,
        policy: AnyPolicy | float,
        *,
        ord: float = 2.0,
        nonfinite: Nonfinite = "propagate",
        eps: float = 0.0,
    ) -> None:
        self.policy: AnyPolicy = as_policy(policy)
        Rule(None, ord, nonfinite, 1.0, eps)  # checks them
        self._ord, self._nonfinite, self._eps = ord, nonfinite, eps
        self._state: Any = None
        self._saved: Mapping[str, Any] | None = None
        self._decision: Decision | None = None
        self._asked = not self.policy.skips
        self._structure: object = None
        self.observers: list[Callable[[Clipper], object]] = []

    def __call__(self, grads: Tree, *, scale: Scalar = 1.0) -> tuple[Tree, Array]:
        """Return clipped gradients, and the norm that they had.

        Parameters
        ----------
        grads : array or container of arrays
            As for `clip_by_global_norm`. Not written to.
        scale : float or 0-d array
            The loss scale, greater than 0, by which gradients are divided.

        Returns
        -------
        clipped : container of arrays
            Of the structure, shapes, dtypes and devices of ``grads``; unchanged if the step is to be skipped.
        norm : array
            The norm before clipping, of the gradients divided by ``scale``: 0-d.

        Raises
        ------
        TypeError
            If a leaf is not a floating-point array, or ``scale`` is not a number.
        ValueError
            If ``scale`` is not greater than 0, or the leaves are not those of the step before and the policy has a
            threshold for each leaf.
        NonFiniteError
            If a gradient is NaN or inf and ``nonfinite="error"``.
        RuntimeError
            If the policy skips steps, and `skipped` was not read after the first.
        """
        leaves = self._containers.leaves(grads)
        clipped, decision, state = self._clip(leaves, scale, leaves.scale)
        return clipped, self._keep(decision, state)

    def clip_(self, grads: Any, *, scale: Scalar = 1.0) -> Array:
        """Clip gradients in place, and return the norm that they had.

        Parameters
        ----------
        grads : writable array or container of arrays
            As for `clip_by_global_norm_`.
        scale
            As for a call.

        Returns
        -------
        array
            The norm before clipping, of the gradients divided by ``scale``: 0-d.

        Raises
        ------
        TypeError
            As for a call; also if a leaf cannot be written.
        ValueError
            As for a call; also if leaves overlap in memory.
        NonFiniteError, RuntimeError
            As for a call.
        """
        leaves = self._containers.leaves_(grads, "clip_")
        _, decision, state = self._clip(leaves, scale, lambda coefficients: leaves.scale_(coefficients, "Clipper"))
        return self._keep(decision, state)

    @property
    def state(self) -> Any:
        """The policy's state, a NamedTuple; None before the first step."""
        return self._state

    @property
    def decision(self) -> Decision:
        """What was decided at the last step."""
        if self._decision is None:
            raise RuntimeError("there was no step yet, expected one before its decision is read; call clipper(grads)")
        return self._decision

    @property
    def norm(self) -> Array:
        """The norm of the last gradients before clipping: a 0-d array."""
        norm: Array = self.decision.norm
        return norm

    @property
    def max_norm(self) -> Any:
        """The threshold of the last step: a float or a 0-d array; one for each leaf for policies that have these."""
        return self.decision.max_norm

    @property
    def coefficient(self) -> Any:
        """What the last gradients were multiplied by: a float or a 0-d array; or one for each leaf."""
        return self.decision.coefficient.number

    @property
    def clipped(self) -> Any:
        """Whether the last gradients were changed: a bool or a 0-d array."""
        return self.decision.clipped

    @property
    def skipped(self) -> Any:
        """Whether the last step is to be skipped: a bool or a 0-d array."""
        self._asked = True
        return self.decision.skipped

    def state_dict(self) -> dict[str, Any]:
        """Return the policy's state as a dict of plain values: floats and lists on a host, arrays on a device."""
        state = self._saved if self._state is None else saved(self._state)
        return {"policy": type(self.policy).__name__, "state": state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned. The next step has the threshold that it would have had there.

        Parameters
        ----------
        state_dict : dict
            Of a clipper with the same kind of policy; its numbers may be those of another framework or device.

        Raises
        ------
        ValueError
            If it is of another policy. A window of another length is noticed at the next step.
        """
        mine, name = type(self.policy).__name__, state_dict.get("policy")
        if name != mine or "state" not in state_dict:
            raise ValueError(
                f"state_dict is of {short(name)}, expected {mine!r}; load it in a Clipper with the policy that it was "
                "saved with"
            )
        self._state, self._saved, self._structure = None, state_dict["state"], None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.policy!r}, ord={self._ord}, nonfinite={self._nonfinite!r}, eps={self._eps})"
        )

    def __getstate__(self) -> dict[str, Any]:
        # A copy is not watched: a monitor may hold open files.
        return {**self.__dict__, "observers": [], "_structure": None}

    @quiet
    def _clip(
        self, leaves: Leaves, scale: Scalar, multiply: Callable[[list[Coefficient]], Any]
    ) -> tuple[Any, Decision, Any]:
        """Return what ``multiply`` makes of the coefficients, the decision, and the policy's next state."""
        decision, state = self._decide(leaves, scale)
        return multiply(coefficients_of(leaves, decision)), decision, state

    def _decide(self, leaves: Leaves, scale: Scalar) -> tuple[Decision, Any]:
        """Return the decision for leaves, and the policy's next state."""
        if not self._asked and self._decision is not None:
            raise RuntimeError(
                f"{self.policy!r} says which steps to skip, and `skipped` was not read after the last step; write: "
                "if clipper.skipped: continue"
            )
        rule = Rule(None, self._ord, self._nonfinite, scale, self._eps)
        found = decide_by_policy(leaves, self.policy, self._state if self._saved is None else self._saved, rule)
        if self.policy.per_leaf and leaves.arrays:
            self._check_structure(leaves)
            self._structure = leaves.structure
        return found

    def _check_structure(self, leaves: Leaves) -> None:
        """Check that leaves are at the same positions as in the step before: else thresholds would be mixed up."""
        found, before = leaves.structure, self._structure
        if found is not None and before is not None and found != before:
            raise ValueError(
                "gradients are at other positions than in the steps before "
                f"({', '.join(leaves.array_paths()[:3])}, …), expected the same, because {type(self.policy).__name__} "
                "has a threshold for each; pass zeros for those that are missing in this step"
            )

    def _keep(self, decision: Decision, state: Any) -> Array:
        """Remember the decision and the state, after gradients were clipped without an error; return the norm."""
        self._decision, self._state, self._saved = decision, state, None
        for observer in self.observers:
            observer(self)
        return self.norm


Clipper.__module__ = "gradclip"  # the name that pickles keep
