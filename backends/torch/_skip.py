"""Steps that are skipped: the optimizer's ``step`` runs, and changes nothing.

On a host, gradients are hidden from the step, for which a parameter without a gradient does not exist, and put back
after it. Zeroed gradients would not do: momentum, weight decay and step counts would move. On a device, a fused
optimizer is told by ``found_inf``, as by GradScaler, and the host does not wait. Other optimizers need the value: then
the host waits for the device.
"""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Skipping:
    """What was hidden from an optimizer's step, to be put back after it."""

    def __init__(self) -> None:
        self._hidden: list[tuple[Tensor, Tensor]] = []
        self._states: dict[Any, dict[str, Any]] = {}
        self._told: tuple[Optimizer, Any] | None = None
        self._optimizer: Optimizer | None = None
        self._hooks: weakref.WeakKeyDictionary[Optimizer, Any] = weakref.WeakKeyDictionary()

    def remove(self) -> None:
        """Put back what is hidden, if a step raised an error, and remove the hooks."""
        self._put_back()
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()

    def begin(self, optimizer: Optimizer, skipped: bool | Tensor) -> None:
        """Make the optimizer's step do nothing if ``skipped``. What is hidden is put back after the step."""
        self._put_back()  # if the step before raised an error
        if isinstance(skipped, Tensor) and skipped.device.type != "cpu" and _reads_found_inf(optimizer):
            before = getattr(optimizer, "found_inf", None)
            found = skipped.to(torch.float32).reshape(1)
            self._told = optimizer, before
            optimizer.found_inf = found if before is None else torch.maximum(before.reshape(1), found)  # type: ignore[attr-defined]
        elif skipped:
            params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            self._hidden = [(p, p.grad) for p in params]
            self._states = {p: dict(state) for p, state in optimizer.state.items()}  # LBFGS counts evaluations there
            for p in params:
                p.grad = None
        if self._hidden or self._told is not None:
            self._optimizer = optimizer
            if optimizer not in self._hooks:
                self._hooks[optimizer] = optimizer.register_step_post_hook(lambda *_: self._put_back())

    def _put_back(self) -> None:
        for p, grad in self._hidden:
            p.grad = grad
        if self._hidden and self._optimizer is not None:
            self._optimizer.state.clear()
            self._optimizer.state.update(self._states)
        if self._told is not None:
            told, before = self._told
            if before is None:
                del told.found_inf  # type: ignore[attr-defined]
            else:
                told.found_inf = before  # type: ignore[attr-defined]
        self._hidden, self._states, self._told, self._optimizer = [], {}, None, None


def _reads_found_inf(optimizer: Optimizer) -> bool:
    """Whether the step reads ``found_inf``: that of fused optimizers, all of whose groups are fused."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False)) and all(
        group.get("fused") for group in optimizer.param_groups
    )
