"""Steps that are skipped: the optimizer's ``step`` runs, and changes nothing.

On a host, the gradients are taken away before the step and put back after it: optimizers pass over parameters without a
gradient. Zeros would not do: momentum, weight decay and step counts would change. On a device, a fused
optimizer is told by ``found_inf``, as by GradScaler, and the host does not wait. Other optimizers need the value: then
the host waits for the device.
"""

import weakref
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Skipping:
    """What was hidden from an optimizer's step, to be put back after it."""

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._hooks: weakref.WeakKeyDictionary[Optimizer, Any] = weakref.WeakKeyDictionary()

    def remove(self) -> None:
        """Put back what is hidden, if a step raised an error, and remove the hooks."""
        self._undo.close()
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()

    def begin(self, optimizer: Optimizer, skipped: bool | Tensor) -> None:
        """Make the optimizer's step do nothing if ``skipped``. What is hidden is put back after the step."""
        self._undo.close()  # if the step before raised an error
        if isinstance(skipped, Tensor) and skipped.device.type != "cpu" and _reads_found_inf(optimizer):
            self._tell(optimizer, skipped)
        elif skipped:
            self._hide(optimizer)
        else:
            return
        if optimizer not in self._hooks:
            self._hooks[optimizer] = optimizer.register_step_post_hook(lambda *_: self._undo.close())

    def _tell(self, optimizer: Any, skipped: Tensor) -> None:
        """Tell a fused step to do nothing, by the flag that it reads."""
        before, found = getattr(optimizer, "found_inf", None), skipped.to(torch.float32).reshape(1)
        if before is None:
            self._undo.callback(delattr, optimizer, "found_inf")
        else:
            self._undo.callback(setattr, optimizer, "found_inf", before)
            found = torch.maximum(before.reshape(1), found)
        optimizer.found_inf = found

    def _hide(self, optimizer: Optimizer) -> None:
        """Hide the gradients from a step, and keep what LBFGS counts in its state."""
        states = {p: dict(state) for p, state in optimizer.state.items()}
        self._undo.callback(optimizer.state.update, states)
        self._undo.callback(optimizer.state.clear)  # before the update: what was added last is undone first
        for p in [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]:
            self._undo.callback(setattr, p, "grad", p.grad)
            p.grad = None


def _reads_found_inf(optimizer: Optimizer) -> bool:
    """Whether the step reads ``found_inf``: that of fused optimizers, all of whose groups are fused."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False)) and all(
        group.get("fused") for group in optimizer.param_groups
    )
