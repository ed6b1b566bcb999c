"""``Ops`` for MLX arrays."""

from collections.abc import Sequence

from gradclip import _dtypes
from gradclip._array_ops import ArrayOps
from gradclip._types import AnyArray, Namespace


class MlxOps(ArrayOps):
    """The operations of ``Ops`` for MLX arrays: powers are added in float32, or in float64 if any leaf has it.

    float64 is not the accumulation dtype of all leaves, as it is elsewhere, because MLX has none on a GPU.
    """

    def __init__(self, xp: Namespace, leaves: Sequence[AnyArray]) -> None:
        super().__init__(xp)
        self._dtype = xp.float64 if any(_dtypes.is_double(x.dtype) for x in leaves) else xp.float32

    def _wide(self, x: AnyArray) -> AnyArray:  # noqa: ARG002  # elsewhere it depends on the leaf's device
        return self._dtype
