"""Folding the coefficient into the step of a fused optimizer.

Fused kernels can divide the gradients by a number as they read them: that is how they undo a loss scale
(``optimizer.grad_scale``, which ``torch.amp.GradScaler`` sets). Dividing by 1 / coefficient is clipping.
"""

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradclip import _namespace as ns
from gradclip._coefficient import Coefficient
from gradclip._numpy import plain_factor
from gradclip._types import Scalar
from gradclip.backends.torch._host import HostOps
from gradclip.backends.torch._leaves import TorchLeaves


class Fold:
    """The loss scale of an optimizer's next step, and what clipping makes of it.

    Parameters
    ----------
    optimizer : Optimizer
        Any; whether its steps can divide is found out each time, by what it says about itself.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._before: Tensor | None = None
        self._begun = False

    def pending(self) -> Scalar:
        """Return the scale that the step is going to divide the gradients by; 1.0 if there is none."""
        scale: Tensor | None = getattr(self._optimizer, "grad_scale", None)
        if scale is None:
            return 1.0
        return float(scale) if scale.device.type == "cpu" else scale.reshape(())

    def begin(self, factor: float) -> bool:
        """Let the next step multiply by a number that float32 holds, if it can; returns whether it will."""
        fused = all(group.get("fused") for group in self._optimizer.param_groups)
        if not fused or not getattr(self._optimizer, "_step_supports_amp_scaling", False):
            return False
        self._before = getattr(self._optimizer, "grad_scale", None)
        self._begun = True
        scale = torch.tensor(self.pending() / factor, dtype=torch.float32, device="cpu")
        self._optimizer.grad_scale = scale  # type: ignore[attr-defined]  # as torch.amp.GradScaler sets it
        return True

    def end(self) -> None:
        """Put back what was there before."""
        if not self._begun:
            return
        self._begun = False
        if self._before is None:
            del self._optimizer.grad_scale  # type: ignore[attr-defined]
        else:
            self._optimizer.grad_scale = self._before  # type: ignore[attr-defined]


def foldable(leaves: TorchLeaves, c: Coefficient) -> float | None:
    """Return a coefficient where it is known, changes something, and float32, in which the kernels divide, holds it."""
    if not isinstance(leaves.ops, HostOps) or isinstance(c.factor, Tensor) or leaves.after:
        return None
    if any(ns.is_double(dtype) for dtype in {x.dtype for x in leaves.arrays}):
        return None
    factor = plain_factor(leaves.arrays[0], c)
    return None if factor == 1.0 else factor
