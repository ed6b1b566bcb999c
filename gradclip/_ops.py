"""``Ops``: the operations that a framework provides. Every algorithm is written once and calls only these.

`OfArrays` has those that are the same for all arrays but Dask's, whose operations take long to build.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from gradclip._coefficient import Coefficient
from gradclip._decision import Decision, Rule
from gradclip._partial import NormPartial
from gradclip._types import AnyArray, AnyScalar, Axes

ToCoefficient: TypeAlias = Callable[..., Coefficient]
"""A function from a list of partial norms, and numbers, to a coefficient."""

Slices: TypeAlias = tuple[AnyArray, Axes]
"""A leaf, and the axes along which each slice of it lies."""


class Ops(Protocol):
    """The operations that a framework provides.

    Leaves are distinct floating-point arrays of one namespace (in an adapter: of one framework), of any shape, on any
    device. No method may read a value back from an accelerator. Methods without a trailing ``_`` must not write to a
    leaf.

    ``readable`` says whether the host may read the value of a norm or a coefficient without waiting for a device.
    """

    readable: bool

    def decide(self, leaves: Sequence[AnyArray], rule: Rule) -> Decision:
        """Return the norm of all leaves laid end to end and the coefficient; write nothing."""
        ...

    def read(self, leaves: Sequence[AnyArray], ord: float) -> "HostPartial | None":
        """Return the partial norm of all leaves laid end to end as floats; None if the host may not read it."""
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

    def coefficient_along(
        self, function: ToCoefficient, ndim: int, slices: Sequence[Slices], *numbers: AnyScalar
    ) -> Coefficient:
        """Return ``function(partials, *numbers)``: the coefficients of slices, from their partial norms of order 2.

        ``slices`` has leaves, and the axes over which `partial_along` reduces each. ``function`` acts on each slice
        alone, and returns arrays of ``ndim`` axes: the first ones of all partial norms, whose other axes have length 1.
        ``numbers`` are floats or 0-d arrays.
        """
        ...

    def coefficients_along(
        self, function: ToCoefficient, columns: Sequence[Sequence[AnyArray]], axes: Sequence[Axes], *numbers: AnyScalar
    ) -> Sequence[Coefficient]:
        """Return the coefficients of slices, as `coefficient_along` does, for each position of ``columns``.

        ``columns`` has lists of arrays, of the same shapes, whose slices are compared: such as the leaves, and their
        parameters. ``axes`` has those over which the arrays at each position are reduced.
        """
        ...

    def scaled_sum(self, leaf: AnyArray, coefficient: Coefficient) -> AnyArray:
        """Return the sum over the leading axis of ``leaf`` times ``coefficient``, rounded once, at the end.

        ``coefficient`` has one number for each index of that axis.
        """
        ...

    def elementwise(self, function: Callable[..., AnyArray], leaf: AnyArray, *others: AnyScalar) -> AnyArray:
        """Return ``function(leaf, *others)``, of the leaf's dtype; ``function`` acts on each element alone.

        ``others`` are arrays that broadcast with the leaf, and floats.
        """
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


class HostPartial(NamedTuple):
    """A partial norm whose value the host has read.

    Parameters
    ----------
    scale, total : float
        As in `NormPartial`.
    as_array : callable
        Makes the norm, a float, a 0-d array beside the leaves, of the norm's dtype.
    """

    scale: float
    total: float
    as_array: Callable[[float], AnyArray]


class OfArrays:
    """Operations that call a function of arrays."""

    readable = False

    def read(
        self,
        leaves: Sequence[AnyArray],  # noqa: ARG002  # only arrays in the host's memory are read
        ord: float,  # noqa: ARG002  # the same
    ) -> HostPartial | None:
        """Return None: the value may be on a device, or not be computed yet."""
        return None

    def coefficient_along(
        self: Ops,
        function: ToCoefficient,
        ndim: int,  # noqa: ARG002  # only Dask must know it before the function is called
        slices: Sequence[Slices],
        *numbers: AnyScalar,
    ) -> Coefficient:
        """Return ``function(partials, *numbers)``, of the partial norms of slices."""
        return function([self.partial_along(x, 2.0, axes) for x, axes in slices], *numbers)

    def coefficients_along(
        self: Ops,
        function: ToCoefficient,
        columns: Sequence[Sequence[AnyArray]],
        axes: Sequence[Axes],
        *numbers: AnyScalar,
    ) -> Sequence[Coefficient]:
        """Return the coefficients of slices, for each position."""
        return [
            self.coefficient_along(function, arrays[0].ndim, [(x, some) for x in arrays], *numbers)
            for *arrays, some in zip(*columns, axes, strict=True)
        ]

    def elementwise(self, function: Callable[..., AnyArray], leaf: AnyArray, *others: AnyScalar) -> AnyArray:
        """Return ``function(leaf, *others)``."""
        return function(leaf, *others)
