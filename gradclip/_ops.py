"""The narrow waist between algorithms and frameworks: every algorithm is written once, over ``Ops``."""

from collections.abc import Sequence
from typing import Protocol

from gradclip._coefficient import Coefficient
from gradclip._decision import Decision, Rule
from gradclip._partial import NormPartial
from gradclip._types import Array, Axes, Scalar


class Ops(Protocol):
    """What a framework must be able to do.

    Leaves are distinct floating-point arrays of one namespace (an adapter's: of one framework), of any shape, on any
    device. No method may read a value back from an accelerator, and the pure ones must not write to a leaf.
    """

    def decide(self, leaves: Sequence[Array], rule: Rule) -> Decision:
        """Return the norm of all leaves laid end to end, and what they are to be multiplied by; nothing is written."""
        ...

    def partial(self, leaves: Sequence[Array], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end: 0-d, on the first leaf's device."""
        ...

    def partials(self, leaves: Sequence[Array], ord: float) -> NormPartial:
        """Return one partial norm for each leaf: shape ``(len(leaves),)``, on the first leaf's device."""
        ...

    def partial_along(self, leaf: Array, ord: float, axes: Axes) -> NormPartial:
        """Return the partial norms of one leaf's slices: reduced over ``axes``, which stay with length 1."""
        ...

    def scale(self, leaves: Sequence[Array], coefficients: Sequence[Coefficient]) -> list[Array]:
        """Return each leaf times its coefficient, in its own dtype. Leaves that need no change may come back."""
        ...

    def scale_(self, leaves: Sequence[Array], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place."""
        ...

    def scaled_sum(self, leaf: Array, coefficient: Coefficient) -> Array:
        """Return the sum over the leading axis of ``leaf`` times ``coefficient``, rounded once, at the end."""
        ...

    def clamp(self, leaves: Sequence[Array], low: Scalar, high: Scalar) -> list[Array]:
        """Return each leaf with its elements moved into ``[low, high]``; NaN stays NaN."""
        ...

    def clamp_(self, leaves: Sequence[Array], low: Scalar, high: Scalar) -> None:
        """Move each leaf's elements into ``[low, high]`` in place."""
        ...

    def apart(self, leaves: Sequence[Array]) -> bool:
        """Whether it is known that no two elements of leaves share memory."""
        ...
