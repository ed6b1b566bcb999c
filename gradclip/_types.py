"""The types that the parts of gradclip agree on, and the narrow waist between algorithms and frameworks: ``Ops``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from gradclip._coefficient import Coefficient
    from gradclip._partial import NormPartial

Array: TypeAlias = Any
"""An array of any namespace that follows the Python array API standard. Python has no type for "any of them"."""

Namespace: TypeAlias = Any
"""The module of functions that belongs to an array, as ``array_api_compat.array_namespace`` gives it."""

Scalar: TypeAlias = Any
"""A real number, or a 0-d array: on an accelerator it is used there and never read back."""

Axes: TypeAlias = tuple[int, ...]
Nonfinite: TypeAlias = Literal["propagate", "error", "zero"]
Tree = TypeVar("Tree")
"""A container of arrays. What comes out has the structure of what went in."""


class Ops(Protocol):
    """What a framework must be able to do; every algorithm is written once, over this.

    Leaves are distinct floating-point arrays of one namespace (an adapter's: of one framework), of any shape, on any
    device. No method may read a value back from an accelerator, and the pure ones must not write to a leaf.
    """

    def partial(self, leaves: Sequence[Array], ord: float) -> "NormPartial":
        """Return the partial norm of all leaves laid end to end: 0-d, on the first leaf's device."""
        ...

    def partials(self, leaves: Sequence[Array], ord: float) -> "NormPartial":
        """Return one partial norm for each leaf: shape ``(len(leaves),)``, on the first leaf's device."""
        ...

    def partial_along(self, leaf: Array, ord: float, axes: Axes) -> "NormPartial":
        """Return the partial norms of one leaf's slices: reduced over ``axes``, which stay with length 1."""
        ...

    def scale(self, leaves: Sequence[Array], coefficients: "Sequence[Coefficient]") -> list[Array]:
        """Return each leaf times its coefficient, in its own dtype. Leaves that need no change may come back."""
        ...

    def scale_(self, leaves: Sequence[Array], coefficients: "Sequence[Coefficient]") -> None:
        """Multiply each leaf by its coefficient in place."""
        ...

    def scaled_sum(self, leaf: Array, coefficient: "Coefficient") -> Array:
        """Return the sum over the leading axis of ``leaf`` times ``coefficient``, rounded once, at the end."""
        ...

    def clamp(self, leaves: Sequence[Array], low: Scalar, high: Scalar) -> list[Array]:
        """Return each leaf with its elements moved into ``[low, high]``; NaN stays NaN."""
        ...

    def clamp_(self, leaves: Sequence[Array], low: Scalar, high: Scalar) -> None:
        """Move each leaf's elements into ``[low, high]`` in place."""
        ...
