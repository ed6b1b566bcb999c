"""What a subclass by `clipped` adds to an optimizer class of Keras: clipping, and variables that tell of it."""
# Not installed where types are checked:
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from gradclip import _checks
from gradclip._by_policy import coefficients_of, decide_by_policy
from gradclip._by_value import clamp_leaves
from gradclip._decision import Decision, Rule
from gradclip._global import decide
from gradclip._tree import Leaves
from gradclip._types import AnyArray, Nonfinite
from gradclip.backends.keras._config import packed, unpacked
from gradclip.policies._as_policy import is_policy
from gradclip.policies._policy import AnyPolicy

_KERAS_CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")


class ClippingOptimizer(keras.optimizers.Optimizer):  # type: ignore[misc]  # Keras has no annotations
    """What `clipped` adds to an optimizer class."""

    grad_norm: Any = None
    clip_coefficient: Any = None
    clipped_steps: Any = None
    skipped_steps: Any = None

    def __init__(
        self,
        *args: Any,
        max_norm: float | AnyPolicy | None = None,
        max_value: float | None = None,
        nonfinite: Nonfinite = "propagate",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if also := [f"{name}={getattr(self, name)}" for name in _KERAS_CLIPS if getattr(self, name) is not None]:
            raise ValueError(
                f"{also[0]} was given, expected max_norm= or max_value= only: gradients would be clipped twice; "
                "leave Keras's argument out"
            )
        if nonfinite == "error" or (nonfinite == "zero" and max_value is not None):
            raise ValueError(
                f"nonfinite={nonfinite!r} with max_value={max_value} was given, expected 'propagate', or 'zero' "
                "without max_value: a compiled step raises no errors, and a bound makes inf finite; leave one out"
            )
        self._policy = max_norm if is_policy(max_norm) else None
        self._rule = Rule(None if self._policy else max_norm, nonfinite=nonfinite)
        self._max_value = None if max_value is None else _checks.threshold(max_value, "max_value")
        self.max_norm = max_norm

    def build(self, variables: Sequence[Any]) -> None:
        """Create the optimizer's variables, then those of clipping, so that checkpoints without these load too."""
        if self.built:
            return
        super().build(variables)
        theirs = len(self.variables)
        single = "float64" if any(v.dtype == "float64" for v in variables) else "float32"
        self.grad_norm = self.add_variable((), dtype=single, name="grad_norm")
        self.clip_coefficient = self.add_variable((), initializer="ones", dtype=single, name="clip_coefficient")
        self.clipped_steps = self.add_variable((), dtype="int32", name="clipped_steps")
        self.skipped_steps = self.add_variable((), dtype="int32", name="skipped_steps")
        self._fields, self._policy_state = [], []
        if self._policy is not None:
            several = (sum(not getattr(v, "overwrite_with_gradient", False) for v in variables),)
            self._like = keras.ops.zeros(several if self._policy.per_leaf else (), dtype=single)
            for name, value in self._policy.init(self._like)._asdict().items():
                self._fields.append(name)
                self._policy_state.append(self._variable(name, value))
        self._of_clipping = self.variables[theirs:]

    def _variable(self, name: str, value: AnyArray) -> Any:
        """Return a new variable for a value of a policy's state."""
        dtype = keras.backend.standardize_dtype(value.dtype)

        def first(shape: Any, dtype: Any) -> Any:  # noqa: ARG001  # Keras passes both
            return keras.ops.copy(value)

        return self.add_variable(tuple(value.shape), initializer=first, dtype=dtype, name=f"clip_{name}")

    def load_own_variables(self, store: Any) -> None:
        """Load the optimizer's variables; a checkpoint of the optimizer without clipping leaves those of clipping."""
        theirs = self.variables[: len(self.variables) - len(self._of_clipping)] if self.built else []
        if not theirs or len(store.keys()) != len(theirs):
            super().load_own_variables(store)
            return
        for i, variable in enumerate(theirs):
            variable.assign(store[str(i)])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor as plain values."""
        mine = {"max_norm": packed(self.max_norm), "max_value": self._max_value, "nonfinite": self._rule.nonfinite}
        return {**super().get_config(), **mine}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Any:
        """Return an optimizer from what `get_config` returned."""
        given = {**config, "max_norm": unpacked(config.get("max_norm"), custom_objects)}
        return super().from_config(given, custom_objects=custom_objects)

    def _clip_gradients(self, grads: Sequence[AnyArray]) -> list[AnyArray]:
        """Return clipped gradients; Keras calls this when gradients are accumulated and unscaled."""
        clip: Callable[..., list[AnyArray]] = _outside_of_graphs(_clip)
        return clip(self, list(grads))

    def _backend_apply_gradients(self, grads: Sequence[AnyArray], trainable_variables: Sequence[Any]) -> None:
        """Take a step; if the policy skips it, put back what it changed, and do not count it."""
        if self._policy is None or not self._policy.skips:
            super()._backend_apply_gradients(grads, trainable_variables)
            return
        stay = {id(v) for v in [*self._of_clipping, *getattr(self, "_accumulated_gradients", [])]}
        kept = [v for v in [*self._trainable_variables, *self.variables] if id(v) not in stay]
        before, count = [keras.ops.copy(v.value) for v in kept], keras.ops.copy(self.skipped_steps.value)
        super()._backend_apply_gradients(grads, trainable_variables)
        skipped = self.skipped_steps.value != count
        for v, old in zip(kept, before, strict=True):
            v.assign(keras.ops.where(skipped, old, v.value))
        batches = self.gradient_accumulation_steps or 1
        self._iterations.assign_sub(keras.ops.cast(skipped, self._iterations.dtype) * batches)

    def _state(self) -> Any:
        """Return the policy's state: as a dict for PyTorch, where it becomes floats on a host."""
        assert self._policy is not None
        values = {name: v.value for name, v in zip(self._fields, self._policy_state, strict=True)}
        return values if keras.backend.backend() == "torch" else type(self._policy.init(self._like))(**values)

    def _note(self, decision: Decision, state: Any) -> None:
        """Write a decision and the policy's next state to the variables."""
        self.grad_norm.assign(decision.norm)
        self.clip_coefficient.assign(keras.ops.min(keras.ops.convert_to_tensor(decision.coefficient.number)))
        for count, happened in ((self.clipped_steps, decision.clipped), (self.skipped_steps, decision.skipped)):
            count.assign_add(keras.ops.cast(happened, "int32"))
        for variable, value in zip(self._policy_state, state or (), strict=True):
            variable.assign(value)


def _clip(optimizer: ClippingOptimizer, grads: list[AnyArray]) -> list[AnyArray]:
    """Return clipped gradients, and write what was decided to the optimizer's variables."""
    bound, policy, rule, state = optimizer._max_value, optimizer._policy, optimizer._rule, None
    leaves = _leaves(grads)
    if bound is not None:
        leaves = _leaves(clamp_leaves(leaves, -bound, bound))
    if policy is None:
        decision = decide(leaves, rule)
    else:
        decision, state = decide_by_policy(leaves, policy, optimizer._state(), rule)
    optimizer._note(decision, state)
    out: list[AnyArray] = leaves.scale(coefficients_of(leaves, decision))
    return out


def _leaves(grads: list[AnyArray]) -> Leaves:
    if keras.backend.backend() == "torch":
        from gradclip.backends.torch._containers import flatten

        return flatten(grads)
    from gradclip.backends.jax._tree import flatten as flatten_jax

    return flatten_jax(grads)


def _outside_of_graphs(function: Any) -> Any:
    """Return a function that torch.compile does not trace."""
    if keras.backend.backend() != "torch":
        return function
    from gradclip.backends.torch._compiled import between_graphs

    return between_graphs(function)
