"""MLX's namespace, as the core calls it.

Its arrays have no device, because the memory is shared; a stream says where an operation runs. They are lazy: nothing
is computed until a value is read, so no Python branch depends on a value, and leaves are not cut into chunks.
"""

from functools import lru_cache
from typing import Any

from gradclip._types import AnyArray, Axes


class MlxNamespace:
    """``mlx.core`` with the standard's arguments that it lacks: ``device``, which is ignored, and ``dtype`` of a sum.

    Parameters
    ----------
    core : module
        ``mlx.core``.
    """

    def __init__(self, core: Any) -> None:
        self._core = core
        self.bool = core.bool_
        self.complex128 = core.complex64  # there is none that is wider

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def asarray(self, x: Any, *, dtype: AnyArray = None, device: object = None, copy: bool | None = None) -> AnyArray:
        """Return an array of a number, a list or an array."""
        del device
        return self._core.asarray(x, dtype, copy=copy)

    def zeros(self, shape: Axes, *, dtype: AnyArray = None, device: object = None) -> AnyArray:
        """Return an array of zeros."""
        del device
        return self._core.zeros(shape, dtype)

    def full(self, shape: Axes, value: Any, *, dtype: AnyArray = None, device: object = None) -> AnyArray:
        """Return an array of one value."""
        del device
        return self._core.full(shape, value, dtype)

    def sum(
        self, x: AnyArray, *, axis: int | Axes | None = None, dtype: AnyArray = None, keepdims: bool = False
    ) -> AnyArray:
        """Return the sum over axes."""
        return self._core.sum(x if dtype is None else x.astype(dtype), axis=axis, keepdims=keepdims)


@lru_cache(maxsize=256)
def is_mlx_type(kind: Any) -> bool:
    """Whether a type is that of MLX's arrays."""
    return bool(kind.__module__ == "mlx.core")


@lru_cache(maxsize=1)
def mlx_namespace(core: Any) -> MlxNamespace:
    """Return the namespace for ``mlx.core``."""
    return MlxNamespace(core)
