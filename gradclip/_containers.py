"""The way into the containers of a framework: what an adapter says of its own, for all public functions."""

from collections.abc import Mapping
from typing import Any, ClassVar, Generic

from gradclip._tree import Leaves, flatten
from gradclip._types import ArrayT, Units


class Containers(Generic[ArrayT]):
    """Containers of the arrays of any namespace. The classes of public functions derive from this one.

    An adapter derives from `gradclip._functions.Functions`, and says here what is different.
    """

    module: ClassVar[str] = "gradclip"
    """The module in which the functions are public."""

    words: ClassVar[Mapping[str, str]] = {}
    """What the docstrings say in the place of the core's words."""

    def leaves(self, grads: Any) -> Leaves:
        """Return the leaves of gradients that are to be returned clipped."""
        return flatten(grads)

    def leaves_(self, grads: Any, caller: str) -> Leaves:  # noqa: ARG002  # an adapter's errors may name it
        """Return the leaves of gradients that are to be clipped in place by a public function, the caller."""
        return flatten(grads)

    def measured(self, grads: Any, *, weights: bool) -> Leaves:
        """Return the leaves of what is to be measured; ``weights`` says whether it may be parameters of PyTorch."""
        return flatten(grads, weights=weights)

    def params(self, params: Any, grads: Leaves) -> Leaves:  # noqa: ARG002  # an adapter may need to know them
        """Return the parameters of some gradients, one for each position."""
        return flatten(params, "params", distinct=False, weights=True)

    def units(self, axis: Units) -> Units:
        """Return the axes that make up a unit in adaptive clipping, where a caller passes ``axis``, None by default."""
        return axis
