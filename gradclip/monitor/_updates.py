"""`Updates`: the norm of what an optimizer's step adds to the parameters."""

from collections.abc import Callable, Sequence
from typing import Any

from gradclip._functions import global_norm
from gradclip._types import AnyArray
from gradclip._words import kind


class Updates:
    """Computes the norm of each step's update: parameters after the step minus parameters before it.

    This takes a copy of all parameters, and three more passes over them for each step.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Or another object with ``param_groups`` and ``register_step_post_hook``.
    tell : callable
        Called with the norm after each step.

    Raises
    ------
    TypeError
        If ``optimizer`` has not both.
    """

    def __init__(self, optimizer: Any, tell: Callable[[AnyArray], object]) -> None:
        if not all(hasattr(optimizer, name) for name in ("param_groups", "register_step_post_hook")):
            raise TypeError(
                f"updates is {kind(optimizer)}, expected a torch.optim.Optimizer; pass the optimizer itself"
            )
        self._groups: Sequence[dict[str, Any]] = optimizer.param_groups
        self._tell = tell
        self._before: list[tuple[Any, Any]] = []
        optimizer.register_step_post_hook(self._after)

    def begin(self) -> None:
        """Copy the parameters that have a gradient, before a step."""
        params = [p for group in self._groups for p in group["params"] if p.grad is not None]
        self._before = [(p, p.detach().clone()) for p in params]

    def _after(self, *_: object) -> None:
        pairs, self._before = self._before, []
        if pairs:
            self._tell(global_norm([p.detach() - before for p, before in pairs]))
