"""``Ops``: the operations that a framework provides. Every algorithm is written once and calls only these."""

from collections.abc import Sequence
from typing import Protocol

from gradclip._coefficient import Coefficient
from gradclip._decision import Decision, Rule
from gradclip._partial import NormPartial
from gradclip._types import AnyArray, AnyScalar, Axes


class Ops(Protocol):
    """The operations that a framework provides.

    Leaves are distinct floating-point arrays of one namespace (in an adapter: of one framework), of any shape, on any
    device. No method may read a value back from an accelerator. Methods without a trailing ``_`` must not write to a
    leaf.
    """

    def decide(self, leaves: Sequence[AnyArray], rule: Rule) -> Decision:
        """Return the norm of all leaves laid end to end and the coefficient; write nothing."""
        ...

    def partial(self, leaves: Sequence[AnyArray], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end: 0-d, on the first leaf's device."""
        ...

    def partials(self, leaves: Sequence[AnyArray], ord: float) -> NormPartial:
        """Return one partial norm for each leaf: shape ``(len(leaves),)``, on the first leaf's device."""
        ...

    def partial_along(self, leaf: AnyArray, ord: float, axes: Axes) -> NormPartial:
        """Return the partial norms of one leaf's slices: reduced over ``axes``, which are kept with length 1."""
        ...

    def scale(self, leaves: Sequence[AnyArray], coefficients: Sequence[Coefficient]) -> list[AnyArray]:
        """Return each leaf times its coefficient, in the leaf's dtype; an unchanged leaf may be the same array."""
        ...

    def scale_(self, leaves: Sequence[AnyArray], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place."""
        ...

    def scaled_sum(self, leaf: AnyArray, coefficient: Coefficient) -> AnyArray:
        """Return the sum over the leading axis of ``leaf`` times ``coefficient``, rounded once, at the end."""
        ...

    def clamp(self, leaves: Sequence[AnyArray], low: AnyScalar, high: AnyScalar) -> list[AnyArray]:
        """Return each leaf with its elements moved into ``[low, high]``; NaN stays NaN."""
        ...

    def clamp_(self, leaves: Sequence[AnyArray], low: AnyScalar, high: AnyScalar) -> None:
        """Move each leaf's elements into ``[low, high]`` in place."""
        ...

    def apart(self, leaves: Sequence[AnyArray]) -> bool:
        """Whether it is known that no two elements of leaves share memory."""
        ...
