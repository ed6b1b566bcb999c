"""``Ops`` for gradients on several devices of one process, as in a model whose layers do not fit on one device.

Each device sends its partial norm, two numbers, to the first gradient's device, which sends the coefficient back.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor

from gradclip._coefficient import Coefficient
from gradclip._decision import Decision, Rule, decide_by_arrays
from gradclip._ops import OfArrays, Ops
from gradclip._partial import NormPartial
from gradclip._types import AnyScalar, Axes
from gradclip.backends.torch.ops._device import apart


class SeveralDevices(OfArrays):
    """The operations of ``Ops`` for tensors of several devices.

    Parameters
    ----------
    parts : dict of device to (Ops, list of int)
        For each device, its operations and the positions of its leaves. The first leaf's device comes first.
    """

    def __init__(self, parts: dict[torch.device, tuple[Ops, list[int]]]) -> None:
        self._parts = parts

    def decide(self, leaves: Sequence[Tensor], rule: Rule) -> Decision:
        """Return the norm of all leaves laid end to end and the coefficient."""
        return decide_by_arrays(self.partial(leaves, rule.ord), rule)

    def apart(self, leaves: Sequence[Tensor]) -> bool:
        """Whether it is known that no two elements of leaves share memory."""
        return apart(leaves)

    def partial(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end."""
        return reduce(NormPartial.merge, [ops.partial(mine, ord) for ops, _, mine in self._each(leaves)])

    def partials(self, leaves: Sequence[Tensor], ord: float) -> NormPartial:
        """Return one partial norm for each leaf, on the first leaf's device."""
        found = [(which, ops.partials(mine, ord)) for ops, which, mine in self._each(leaves)]
        home, dtypes = leaves[0].device, {partial.dtype for _, partial in found}
        order = torch.tensor([i for which, _ in found for i in which]).argsort().to(home)
        scale, total = (
            torch.cat([getattr(partial, name).to(home) for _, partial in found])[order] for name in ("scale", "total")
        )
        return NormPartial(scale, total, ord, torch.float64 if torch.float64 in dtypes else torch.float32)

    def partial_along(self, leaf: Tensor, ord: float, axes: Axes) -> NormPartial:
        """Return the partial norms of one leaf's slices, on its device."""
        return self._ops_for(leaf).partial_along(leaf, ord, axes)

    def scale(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> list[Tensor]:
        """Return each leaf times its coefficient."""
        return self._gathered(leaves, lambda ops, which, mine: ops.scale(mine, _moved(coefficients, which, mine)))

    def scale_(self, leaves: Sequence[Tensor], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place."""
        for ops, which, mine in self._each(leaves):
            ops.scale_(mine, _moved(coefficients, which, mine))

    def scaled_sum(self, leaf: Tensor, coefficient: Coefficient) -> Tensor:
        """Return the sum over the leading axis of ``leaf`` times ``coefficient``."""
        summed: Tensor = self._ops_for(leaf).scaled_sum(leaf, coefficient.to(leaf.device))
        return summed

    def clamp(self, leaves: Sequence[Tensor], low: AnyScalar, high: AnyScalar) -> list[Tensor]:
        """Return each leaf with its elements moved into the bounds."""
        return self._gathered(leaves, lambda ops, _, mine: ops.clamp(mine, low, high))

    def clamp_(self, leaves: Sequence[Tensor], low: AnyScalar, high: AnyScalar) -> None:
        """Move each leaf's elements into the bounds in place."""
        for ops, _, mine in self._each(leaves):
            ops.clamp_(mine, low, high)

    def _each(self, leaves: Sequence[Tensor]) -> Iterator[tuple[Ops, list[int], list[Tensor]]]:
        return ((ops, which, [leaves[i] for i in which]) for ops, which in self._parts.values())

    def _gathered(
        self, leaves: Sequence[Tensor], call: Callable[[Ops, list[int], list[Tensor]], list[Tensor]]
    ) -> list[Tensor]:
        """Return what ``call`` returns for the leaves of each device, in the order of the leaves."""
        out = list(leaves)
        for ops, which, mine in self._each(leaves):
            for i, x in zip(which, call(ops, which, mine), strict=True):
                out[i] = x
        return out

    def _ops_for(self, leaf: Tensor) -> Ops:
        """Return the operations of a leaf's device."""
        return self._parts[leaf.device][0]


def _moved(coefficients: Sequence[Coefficient], which: list[int], leaves: list[Tensor]) -> list[Coefficient]:
    """Return the coefficients at these positions on the leaves' device. One that several leaves share is moved once."""
    moved = {id(c): c.to(leaves[0].device) for c in coefficients}
    return [moved[id(coefficients[i])] for i in which]
