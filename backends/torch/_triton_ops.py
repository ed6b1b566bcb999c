"""``Ops`` for PyTorch where Triton compiles for the tensors' device: two launches for the norm, one for scaling."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradclip import _namespace as ns
from gradclip._coefficient import Coefficient
from gradclip._partial import NormPartial
from gradclip.backends.torch import _triton
from gradclip.backends.torch._ops import TorchOps, as_tensors


class TritonOps(TorchOps):
    """The operations of ``Ops`` for tensors on a GPU; what the kernels cannot do is ``TorchOps``'."""

    def partial(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end."""
        if not _triton.suits(leaves, ord):
            return super().partial(leaves, ord)
        return _partial(_triton.partial(leaves, ord), leaves, ord)

    def partials(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        if not _triton.suits(leaves, ord):
            return super().partials(leaves, ord)
        return _partial(_triton.partials(leaves, ord), leaves, ord)

    def scale_(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place; nothing is written where it is 1."""
        if not _triton.suits(leaves) or any(c.factor.ndim for c in coefficients):
            super().scale_(leaves, coefficients)
            return
        c = _joined(coefficients).to(leaves[0].device)
        divisor, factor = (part.to(torch.float64) for part in (c.divisor, c.factor))
        _triton.scale_(leaves, divisor, factor, c.changed, c.zeroed)


def _partial(pair: Tensor, leaves: Sequence[Tensor], ord: float) -> NormPartial:
    dtype = torch.float64 if any(ns.is_double(x.dtype) for x in leaves) else torch.float32
    return NormPartial(pair[..., 0], pair[..., 1], ord, dtype)


def _joined(coefficients: Sequence[Coefficient]) -> Coefficient:
    """Return the coefficient that all leaves have, or one of shape (n,) of those of each."""
    first = as_tensors(coefficients[0])
    if all(c is coefficients[0] for c in coefficients):
        return first
    parts = [as_tensors(c) for c in coefficients]
    zeroed = None if first.zeroed is None else torch.stack([c.zeroed for c in parts if c.zeroed is not None])
    divisor, factor, changed = (torch.stack([getattr(c, n) for c in parts]) for n in ("divisor", "factor", "changed"))
    return Coefficient(divisor, factor, changed, zeroed)
