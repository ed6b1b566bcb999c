"""Gradients on several devices, as a model has them whose layers do not fit on one: each device works on its own.

What travels is a partial norm, two numbers, to the first gradient's device, and the coefficient back.
"""

from collections.abc import Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor

from gradclip._coefficient import Coefficient
from gradclip._partial import NormPartial
from gradclip._types import Namespace, Scalar
from gradclip.backends.torch._ops import TorchOps, as_tensors, in_tensors


class SpreadOps(TorchOps):
    """The operations of ``Ops`` for tensors of several devices.

    Parameters
    ----------
    xp : namespace
        PyTorch's.
    parts : sequence of (TorchOps, list of int)
        For each device, the first leaf's first, its operations and which leaves are there.
    """

    def __init__(self, xp: Namespace, parts: Sequence[tuple[TorchOps, list[int]]]) -> None:
        super().__init__(xp)
        self._parts = parts

    def partial(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end."""
        return reduce(NormPartial.merge, [in_tensors(ops.partial(mine, ord)) for ops, _, mine in self._each(leaves)])

    def partials(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return one partial norm for each leaf, on the first leaf's device."""
        found = [(which, in_tensors(ops.partials(mine, ord))) for ops, which, mine in self._each(leaves)]
        home, dtypes = leaves[0].device, {partial.dtype for _, partial in found}
        order = torch.tensor([i for which, _ in found for i in which]).argsort().to(home)
        scale, total = (
            torch.cat([getattr(partial, name).to(home) for _, partial in found])[order] for name in ("scale", "total")
        )
        return NormPartial(scale, total, ord, torch.float64 if torch.float64 in dtypes else torch.float32)

    def scale_(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place."""
        for ops, which, mine in self._each(leaves):
            moved = {id(c): as_tensors(c).to(mine[0].device) for c in coefficients}  # mostly one for all
            ops.scale_(mine, [moved[id(coefficients[i])] for i in which])

    def clamp_(self, leaves: Sequence[Tensor], low: Scalar, high: Scalar) -> None:
        """Move each leaf's elements into the bounds in place."""
        for ops, _, mine in self._each(leaves):
            ops.clamp_(mine, low, high)

    def _each(self, leaves: Sequence[Tensor]) -> Iterator[tuple[TorchOps, list[int], list[Tensor]]]:
        return ((ops, which, [leaves[i] for i in which]) for ops, which in self._parts)
