"""The types that all modules of gradclip use."""

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias, TypeVar


class Array(Protocol):
    """An array of any namespace, as users pass it and get it: NumPy's, PyTorch's, JAX's and others.

    This is what all of them have. Nobody derives from this class; a type checker compares the methods. What operations
    return is Any, because only the type of a framework's own array says it.
    """

    @property
    def shape(self) -> tuple[Any, ...]: ...

    @property
    def ndim(self) -> int: ...

    @property
    def dtype(self) -> Any: ...

    def __bool__(self) -> bool: ...

    def __float__(self) -> float: ...

    def __neg__(self) -> Any: ...

    def __add__(self, other: Any, /) -> Any: ...

    def __radd__(self, other: Any, /) -> Any: ...

    def __mul__(self, other: Any, /) -> Any: ...

    def __rmul__(self, other: Any, /) -> Any: ...

    def __truediv__(self, other: Any, /) -> Any: ...

    def __rtruediv__(self, other: Any, /) -> Any: ...

    def __pow__(self, other: Any, /) -> Any: ...

    def __lt__(self, other: Any, /) -> Any: ...

    def __le__(self, other: Any, /) -> Any: ...

    def __gt__(self, other: Any, /) -> Any: ...

    def __ge__(self, other: Any, /) -> Any: ...


Namespace: TypeAlias = Any
"""The module with the functions for an array, as ``array_api_compat.array_namespace`` returns it."""

Scalar: TypeAlias = float | Array
"""A real number, or a 0-d array. An array on an accelerator is used there and never read back."""

AnyArray: TypeAlias = Any
"""An `Array` as the algorithms see it. They learn the namespace at run time, so no checker knows its functions."""

AnyScalar: TypeAlias = Any
"""A `Scalar` as the algorithms see it: a float or an array of any namespace."""

Axes: TypeAlias = tuple[int, ...]
Units: TypeAlias = int | Axes | Callable[[tuple[int, ...]], Axes] | None
"""The axes that make up a unit, or what gives them for a shape; None for those of JAX's layouts."""

Nonfinite: TypeAlias = Literal["propagate", "error", "zero"]

Tree = TypeVar("Tree")
"""A container of arrays. A function that takes one returns a container of the same structure."""

ArrayT = TypeVar("ArrayT", bound=Array)
"""The arrays of the framework that public functions are bound to: a norm, or a count, is one."""
