"""Conversion of containers to leaves for all public functions, which each adapter overrides for its framework."""

from collections.abc import Mapping
from typing import Any, ClassVar, Generic

from gradclip._tree import Leaves, flatten
from gradclip._types import ArrayT, Units


class Containers(Generic[ArrayT]):
    """Containers of the arrays of any namespace. The classes of public functions derive from this one.

    An adapter derives from `gradclip._functions.Functions` and overrides the methods and attributes of this class.
    """

    module: ClassVar[str] = "gradclip"
    """The module in which the functions are public."""

    words: ClassVar[Mapping[str, str]] = {}
    """Replacements in docstrings: for each phrase of the core, the adapter's phrase."""

    def leaves(self, grads: Any) -> Leaves:
        """Return the leaves of gradients, for functions that return new arrays."""
        return flatten(grads)

    def leaves_(self, grads: Any, caller: str) -> Leaves:  # noqa: ARG002  # an adapter's errors may name it
        """Return the leaves of gradients, for functions that write in place. ``caller`` names the public function."""
        return flatten(grads)

    def measured(self, grads: Any, *, weights: bool) -> Leaves:
        """Return the leaves for functions that compute norms. With ``weights``, they may be parameters of PyTorch."""
        return flatten(grads, weights=weights)

    def params(self, params: Any, grads: Leaves) -> Leaves:  # noqa: ARG002  # an adapter may need to know them
        """Return the parameters of some gradients, one for each position."""
        return flatten(params, "params", distinct=False, weights=True)

    def units(self, axis: Units) -> Units:
        """Return the axes of a unit in adaptive clipping for the ``axis`` that the caller passes, None by default."""
        return axis
