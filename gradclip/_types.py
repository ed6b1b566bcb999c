"""The types that all modules of gradclip use."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

Array: TypeAlias = Any
"""An array of any namespace that follows the Python array API standard. Python has no type for these."""

Namespace: TypeAlias = Any
"""The module with the functions for an array, as ``array_api_compat.array_namespace`` returns it."""

Scalar: TypeAlias = Any
"""A real number, or a 0-d array. An array on an accelerator is used there and never read back."""

Axes: TypeAlias = tuple[int, ...]
Units: TypeAlias = int | Axes | Callable[[tuple[int, ...]], Axes] | None
"""The axes that make up a unit, or what gives them for a shape; None for those of JAX's layouts."""

Nonfinite: TypeAlias = Literal["propagate", "error", "zero"]
Tree = TypeVar("Tree")
"""A container of arrays. A function that takes one returns a container of the same structure."""
