"""``Ops`` for PyTorch where Triton compiles for the tensors' device: a launch for partial norms, coefficient, scaling.

Nothing is read back, and where nothing is clipped nothing is written.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradclip._coefficient import Coefficient
from gradclip._finished import Settings
from gradclip._partial import NormPartial
from gradclip._types import Namespace, Scalar
from gradclip.backends.torch import _triton
from gradclip.backends.torch._ops import TorchOps, as_tensors
from gradclip.backends.torch._triton_table import Table, table_of


class TritonOps(TorchOps):
    """The operations of ``Ops`` for tensors on a GPU; what the kernels cannot do is ``TorchOps``'.

    Made for one call, for it holds the tensors that it was asked for last.

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
        self._known: Sequence[Tensor] | None = None
        self._found: Table | None = None

    def finishing(self, settings: Settings) -> "TritonOps":
        """Return operations whose ``partial`` comes with the coefficient for these settings."""
        return TritonOps(self.xp, settings)

    def partial(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end, with the coefficient that belongs to it."""
        table = self._table(leaves)
        if table is None or not _triton.has_order(table, ord):
            return super().partial(leaves, ord)
        return _triton.finished(table, ord, self._settings)

    def partials(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        table = self._table(leaves)
        if table is None or not _triton.has_order(table, ord):
            return super().partials(leaves, ord)
        pairs = _triton.partials(table, ord)
        return NormPartial(pairs[:, 0], pairs[:, 1], ord, table.norm_dtype)

    def scale_(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place; nothing is written where it is 1."""
        table = self._table(leaves)
        if table is None or any(c.factor.ndim for c in coefficients):
            super().scale_(leaves, coefficients)
            return
        c = _joined(coefficients).to(table.device)
        divisor, factor = (part.to(torch.float64) for part in (c.divisor, c.factor))
        _triton.scale_(table, divisor, factor, c.changed, c.zeroed)
        written(leaves)

    def clamp_(self, leaves: Sequence[Tensor], low: Scalar, high: Scalar) -> None:
        """Move each leaf's elements into the bounds in place, in one launch a dtype."""
        table = self._table(leaves)
        if table is None or not (isinstance(low, float) and isinstance(high, float)):
            super().clamp_(leaves, low, high)
            return
        _triton.clamp_(table, low, high)
        written(leaves)

    def _table(self, leaves: Sequence[Tensor]) -> Table | None:
        """Return the table of leaves, or None if the kernels cannot read them."""
        if leaves is not self._known:
            self._known, self._found = leaves, table_of(leaves) if _triton.suits(leaves) else None
        return self._found


def clip_plain_(grads: Sequence[Tensor], max_norm: float) -> Tensor | None:
    """Clip gradients in place by their Euclidean norm and return it, or return None and leave them if they overlap.

    What `TritonOps` does, at the least cost on the host, for plain tensors of one device, one after another in memory.
    """
    if set(map(type, grads)) != {Tensor} or not all(map(Tensor.is_contiguous, grads)):
        return None
    table = table_of(grads, fits=_triton.suits)
    if table is None or not table.apart:
        return None
    norm = _triton.clip_(table, max_norm)
    written(grads)
    return norm


def written(tensors: Sequence[Tensor]) -> None:
    """Tell autograd that tensors were written to, as PyTorch's own operations in place do."""
    torch.autograd.graph.increment_version([x for x in tensors if not x.is_inference()])


def _joined(coefficients: Sequence[Coefficient]) -> Coefficient:
    """Return the coefficient that all leaves have, or one of shape (n,) of those of each."""
    first = as_tensors(coefficients[0])
    if all(c is coefficients[0] for c in coefficients):
        return first
    parts = [as_tensors(c) for c in coefficients]
    zeroed = None if first.zeroed is None else torch.stack([c.zeroed for c in parts if c.zeroed is not None])
    divisor, factor, changed = (torch.stack([getattr(c, n) for c in parts]) for n in ("divisor", "factor", "changed"))
    return Coefficient(divisor, factor, changed, zeroed)
