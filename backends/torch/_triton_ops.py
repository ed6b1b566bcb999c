"""``Ops`` for PyTorch where Triton compiles for the tensors' device: a launch for partial norms, coefficient, scaling.

Nothing is read back, and where nothing is clipped nothing is written.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradclip import _namespace as ns
from gradclip._coefficient import Coefficient
from gradclip._finished import Settings
from gradclip._partial import NormPartial
from gradclip._types import Namespace, Scalar
from gradclip.backends.torch import _triton
from gradclip.backends.torch._ops import TorchOps, as_tensors


class TritonOps(TorchOps):
    """The operations of ``Ops`` for tensors on a GPU; what the kernels cannot do is ``TorchOps``'.

    Parameters
    ----------
    xp : namespace
        PyTorch's.
    settings : Settings
        For the coefficient that ``partial`` computes beside the norm.
    """

    def __init__(self, xp: Namespace, settings: Settings | None = None) -> None:
        super().__init__(xp)
        self._settings = settings or Settings()

    def finishing(self, settings: Settings) -> "TritonOps":
        """Return operations whose ``partial`` comes with the coefficient for these settings."""
        return TritonOps(self.xp, settings)

    def partial(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end, with the coefficient that belongs to it."""
        if _triton.suits(leaves, ord):
            return _triton.finished(leaves, ord, self._settings)
        return super().partial(leaves, ord)

    def partials(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        if not _triton.suits(leaves, ord):
            return super().partials(leaves, ord)
        pairs = _triton.partials(leaves, ord)
        double = any(ns.is_double(x.dtype) for x in leaves)
        return NormPartial(pairs[:, 0], pairs[:, 1], ord, torch.float64 if double else torch.float32)

    def scale_(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place; nothing is written where it is 1."""
        if not _triton.suits(leaves) or any(c.factor.ndim for c in coefficients):
            super().scale_(leaves, coefficients)
            return
        c = _joined(coefficients).to(leaves[0].device)
        divisor, factor = (part.to(torch.float64) for part in (c.divisor, c.factor))
        _triton.scale_(leaves, divisor, factor, c.changed, c.zeroed)

    def clamp_(self, leaves: Sequence[Tensor], low: Scalar, high: Scalar) -> None:
        """Move each leaf's elements into the bounds in place, in one launch a dtype."""
        if isinstance(low, float) and isinstance(high, float) and _triton.suits(leaves):
            _triton.clamp_(leaves, low, high)
        else:
            super().clamp_(leaves, low, high)


def _joined(coefficients: Sequence[Coefficient]) -> Coefficient:
    """Return the coefficient that all leaves have, or one of shape (n,) of those of each."""
    first = as_tensors(coefficients[0])
    if all(c is coefficients[0] for c in coefficients):
        return first
    parts = [as_tensors(c) for c in coefficients]
    zeroed = None if first.zeroed is None else torch.stack([c.zeroed for c in parts if c.zeroed is not None])
    divisor, factor, changed = (torch.stack([getattr(c, n) for c in parts]) for n in ("divisor", "factor", "changed"))
    return Coefficient(divisor, factor, changed, zeroed)
