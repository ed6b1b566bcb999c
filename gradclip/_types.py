"""The types that the parts of gradclip agree on."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

Array: TypeAlias = Any
"""An array of any namespace that follows the Python array API standard. Python has no type for "any of them"."""

Namespace: TypeAlias = Any
"""The module of functions that belongs to an array, as ``array_api_compat.array_namespace`` gives it."""

Scalar: TypeAlias = Any
"""A real number, or a 0-d array: on an accelerator it is used there and never read back."""

Axes: TypeAlias = tuple[int, ...]
Units: TypeAlias = int | Axes | Callable[[tuple[int, ...]], Axes] | None
"""The axes that make up a unit, or what gives them for a shape; None for those of JAX's layouts."""

Nonfinite: TypeAlias = Literal["propagate", "error", "zero"]
Tree = TypeVar("Tree")
"""A container of arrays. What comes out has the structure of what went in."""
