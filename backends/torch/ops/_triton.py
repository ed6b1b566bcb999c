"""``Ops`` for PyTorch on devices that Triton compiles for: a few launches for all tensors together.

Nothing is read back, and nothing is written if nothing is clipped.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradclip._coefficient import Coefficient, is_shared
from gradclip._decision import Decision, Rule
from gradclip._partial import NormPartial
from gradclip._types import AnyScalar
from gradclip.backends.torch.ops import _launch
from gradclip.backends.torch.ops._device import DEVICE, TorchOps
from gradclip.backends.torch.ops._triton_table import Table, table_of


class TritonOps(TorchOps):
    """The operations of ``Ops`` for tensors on a GPU; ``TorchOps`` does what the kernels cannot.

    An instance is made for one call, because it keeps the table of the tensors that it got last.
    """

    def __init__(self) -> None:
        super().__init__(DEVICE.xp)
        self._known: Sequence[Tensor] | None = None
        self._found: Table | None = None

    def decide(self, leaves: Sequence[Tensor], rule: Rule) -> Decision:
        """Return the norm of all leaves laid end to end and the coefficient, both from one kernel."""
        table = self._table(leaves)
        if table is None or not _launch.has_order(table, rule.ord):
            return super().decide(leaves, rule)
        return _launch.decide(table, rule)[0]

    def partial(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end."""
        table = self._table(leaves)
        if table is None or not _launch.has_order(table, ord):
            return super().partial(leaves, ord)
        return _launch.decide(table, Rule(None, ord))[1]

    def partials(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        table = self._table(leaves)
        if table is None or not _launch.has_order(table, ord):
            return super().partials(leaves, ord)
        pairs = _launch.partials(table, ord)
        return NormPartial(pairs[:, 0], pairs[:, 1], ord, table.norm_dtype)

    def scale_(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place. Leaves that do not change are not written."""
        table = self._table(leaves)
        if table is None or any(isinstance(c.factor, float) or c.factor.ndim for c in coefficients):
            super().scale_(leaves, coefficients)
            return
        c = _joined(coefficients).to(table.device)
        divisor, factor = (part.to(torch.float64) for part in (c.divisor, c.factor))
        _launch.scale_(table, divisor, factor, c.changed, c.zeroed)
        torch.autograd.graph.increment_version(leaves)  # as PyTorch's own operations in place do

    def clamp_(self, leaves: Sequence[Tensor], low: AnyScalar, high: AnyScalar) -> None:
        """Move each leaf's elements into the bounds in place, in one launch per dtype."""
        table = self._table(leaves)
        if table is None or not (isinstance(low, float) and isinstance(high, float)):
            super().clamp_(leaves, low, high)
            return
        _launch.clamp_(table, low, high)
        torch.autograd.graph.increment_version(leaves)  # as PyTorch's own operations in place do

    def apart(self, leaves: Sequence[Tensor]) -> bool:
        """Whether it is known that no two elements of leaves share memory."""
        table = self._table(leaves)
        return table.apart if table is not None and all(map(Tensor.is_contiguous, leaves)) else super().apart(leaves)

    def _table(self, leaves: Sequence[Tensor]) -> Table | None:
        """Return the table of leaves, or None if the kernels cannot read them."""
        if leaves is not self._known:
            self._known, self._found = leaves, table_of(leaves, fits=_launch.suits)
        return self._found


def _joined(coefficients: Sequence[Coefficient]) -> Coefficient:
    """Return the one coefficient of all leaves, or else a batch of shape (n,) with that of each leaf."""
    first = coefficients[0]
    if is_shared(coefficients):
        return first
    zeroed = None if first.zeroed is None else torch.stack([c.zeroed for c in coefficients if c.zeroed is not None])
    divisor, factor, changed = (
        torch.stack([getattr(c, name) for c in coefficients]) for name in ("divisor", "factor", "changed")
    )
    return Coefficient(divisor, factor, changed, zeroed)
