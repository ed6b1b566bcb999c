"""MLX's namespace, as the core calls it.

Its arrays have no device, because the memory is shared; a stream says where an operation runs. They are lazy: nothing
is computed until a value is read, so no Python branch depends on a value, and leaves are not cut into chunks.
"""

import math
from functools import lru_cache
from typing import Any

from gradclip._limits import MLX_SUM_BLOCK_NUMEL as BLOCK_NUMEL
from gradclip._types import AnyArray, Axes


class MlxNamespace:
    """``mlx.core`` with what it lacks: the argument ``device``, which is ignored, and sums that are exact enough.

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

    def arange(self, stop: int, *, dtype: AnyArray = None, device: object = None) -> AnyArray:
        """Return the numbers below ``stop``."""
        del device
        return self._core.arange(stop, dtype=dtype)

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
        """Return the sum over axes, added in a tree: MLX adds one element after the other."""
        x = x if dtype is None else x.astype(dtype)
        along = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
        axes = [i % x.ndim for i in along]
        rest = [i for i in range(x.ndim) if i not in axes]
        kept = [x.shape[i] for i in rest]
        y = self._core.reshape(self._core.transpose(x, [*rest, *axes]), [*kept, math.prod(x.shape[i] for i in axes)])
        while (n := y.shape[-1]) > BLOCK_NUMEL:
            whole = n - n % BLOCK_NUMEL
            blocks = self._core.reshape(y[..., :whole], [*kept, whole // BLOCK_NUMEL, BLOCK_NUMEL])
            sums = self._core.sum(blocks, axis=-1)
            y = self._core.concatenate([sums, y[..., whole:]], axis=-1) if whole < n else sums
        shape = [1 if i in axes else x.shape[i] for i in range(x.ndim)] if keepdims else kept
        return self._core.reshape(self._core.sum(y, axis=-1), shape)


def is_mlx_array(x: object) -> bool:
    """Whether ``x`` is an array of MLX."""
    return type(x).__module__ == "mlx.core"


@lru_cache(maxsize=1)
def mlx_namespace(core: Any) -> MlxNamespace:
    """Return the namespace for ``mlx.core``."""
    return MlxNamespace(core)
