"""``Ops`` for Dask's arrays: each stage is one operation of Dask for a leaf, with the chunks' own stage inside.

To make one operation of Dask takes about a millisecond, so few are made. Chunks are NumPy arrays, or those of another
namespace. The partial norms of chunks are merged in a tree; between its tasks the graph carries `NormPartial`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np

from gradclip import _dtypes
from gradclip import _namespace as ns
from gradclip._array_ops import ArrayOps
from gradclip._coefficient import Coefficient
from gradclip._limits import MERGE_AT_ONCE
from gradclip._numpy_ops import numpy_ops
from gradclip._ops import Ops
from gradclip._partial import NormPartial, merge_elements, stack
from gradclip._types import AnyArray, AnyScalar, Axes

_quiet = np.errstate(all="ignore")


class DaskOps(ArrayOps):
    """The operations of ``Ops`` for Dask's arrays. They make tasks, and compute nothing."""

    def partial(self, leaves: Sequence[AnyArray], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end."""
        return self._gathered(leaves, ord, _merged_pair, ())

    def partials(self, leaves: Sequence[AnyArray], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        return self._gathered(leaves, ord, _pairs, (len(leaves),))

    def partial_along(self, leaf: AnyArray, ord: float, axes: Axes) -> NormPartial:
        """Return the partial norms of one leaf's slices, merged from those of chunks."""
        found = self._merged(leaf, ord, axes)
        scale, total = (self._by_chunk(function, found, self.xp.float64) for function in (_scale_of, _total_of))
        return NormPartial(scale, total, ord, _dtypes.norm_dtype(self.xp, leaf))

    def scale(self, leaves: Sequence[AnyArray], coefficients: Sequence[Coefficient]) -> list[AnyArray]:
        """Return each leaf times its coefficient."""
        return [self._scaled(x, self._there(c, x)) for x, c in zip(leaves, coefficients, strict=True)]

    def scale_(self, leaves: Sequence[AnyArray], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient: the array stays, its tasks change."""
        _assign(leaves, self.scale(leaves, coefficients))

    def clamp(self, leaves: Sequence[AnyArray], low: AnyScalar, high: AnyScalar) -> list[AnyArray]:
        """Return each leaf with its elements moved into the bounds."""
        return [self._by_chunk(_clamped, x, x.dtype, low, high) for x in leaves]

    def clamp_(self, leaves: Sequence[AnyArray], low: AnyScalar, high: AnyScalar) -> None:
        """Move each leaf's elements into the bounds: the array stays, its tasks change."""
        _assign(leaves, self.clamp(leaves, low, high))

    def _scaled(self, x: AnyArray, c: Coefficient) -> AnyArray:
        numbers = [c.divisor, c.factor, c.changed] + ([] if c.zeroed is None else [c.zeroed])
        return self._by_chunk(_scaled, x, x.dtype, *numbers)

    def _gathered(
        self, leaves: Sequence[AnyArray], ord: float, function: Callable[..., AnyArray], shape: tuple[int, ...]
    ) -> NormPartial:
        """Return partial norms of this shape; ``function`` makes pairs of scale and total of the leaves' partials."""
        axes = dict(enumerate((*shape, 2)))
        found = [arg for x in leaves for arg in (self._merged(x, ord), ())]
        pairs = self.xp.blockwise(
            function, tuple(axes), *found, new_axes=axes, dtype=self.xp.float64, meta=_numbers_like(leaves[0]._meta)
        )
        dtype = next((x.dtype for x in leaves if _dtypes.is_double(x.dtype)), None)
        return NormPartial(pairs[..., 0], pairs[..., 1], ord, self.xp.float32 if dtype is None else self.xp.float64)

    def _merged(self, x: AnyArray, ord: float, axes: Axes | None = None) -> AnyArray:
        """Return an array of Dask whose chunks are partial norms: of the whole leaf, or of its slices along axes."""
        return self.xp.reduction(
            x,
            chunk=partial(_partial, ord=ord, whole=axes is None),
            aggregate=_merge,
            axis=axes,
            keepdims=axes is not None,
            dtype=self.xp.float64,
            split_every=MERGE_AT_ONCE,
            concatenate=False,
            meta=_numbers_like(x._meta),
        )

    def _by_chunk(self, function: Callable[..., AnyArray], x: AnyArray, dtype: AnyArray, *others: Any) -> AnyArray:
        """Return ``function`` of each chunk of a leaf, and of those of other arrays, which broadcast with it."""
        axes = tuple(range(x.ndim))
        args = [arg for y in others for arg in (y, axes[len(axes) - y.ndim :] if ns.is_lazy(y) else None)]
        return self.xp.blockwise(function, axes, x, axes, *args, dtype=dtype, meta=x._meta)


@_quiet
def _partial(
    x: AnyArray, axis: Axes, ord: float, whole: bool, computing_meta: bool = False, **_: object
) -> AnyArray | NormPartial:
    """Return the partial norm of a chunk, 0-d if it is that of a whole leaf."""
    if computing_meta:
        return _numbers_like(x)
    x, ops = _chunk(x)
    return ops.partial([x], ord) if whole else ops.partial_along(x, ord, axis)


@_quiet
def _merge(parts: Any, **_: object) -> NormPartial:
    """Return the partial norm of some chunks, from theirs in lists within lists, in order."""
    return reduce(NormPartial.merge, _flat(parts))


@_quiet
def _merged_pair(*parts: NormPartial) -> AnyArray:
    """Return scale and total of leaves together: shape (2,)."""
    return _pair(merge_elements(stack(parts)))


@_quiet
def _pairs(*parts: NormPartial) -> AnyArray:
    """Return scale and total of each leaf: shape (number of leaves, 2)."""
    return _pair(stack(parts))


def _pair(part: NormPartial) -> AnyArray:
    return ns.namespace([part.total]).stack([part.scale, part.total], axis=-1)


def _scale_of(part: NormPartial) -> AnyArray:
    return part.scale


def _total_of(part: NormPartial) -> AnyArray:
    return part.total


@_quiet
def _scaled(x: AnyArray, *numbers: Any) -> AnyArray:
    """Return a chunk times its coefficient, of which ``numbers`` are the fields."""
    x, ops = _chunk(x)
    return ops.scale([x], [Coefficient(*map(ns.as_array, numbers))])[0]


@_quiet
def _clamped(x: AnyArray, low: AnyScalar, high: AnyScalar) -> AnyArray:
    """Return a chunk with its elements moved into the bounds."""
    x, ops = _chunk(x)
    return ops.clamp([x], low, high)[0]


def _numbers_like(meta: AnyArray) -> AnyArray:
    """Return an empty array of float64 and of the kind of the chunks: Dask's ``meta`` of scale and total."""
    return np.empty_like(meta, dtype=np.float64)


def _chunk(x: AnyArray) -> tuple[AnyArray, Ops]:
    """Return a chunk as an array, and the operations for it."""
    x = ns.as_array(x)
    return x, numpy_ops() if type(x) is np.ndarray else ArrayOps(ns.namespace([x]))


def _flat(parts: Any) -> Iterator[NormPartial]:
    if isinstance(parts, NormPartial):
        yield parts
    else:
        for part in parts:
            yield from _flat(part)


def _assign(leaves: Sequence[AnyArray], values: Sequence[AnyArray]) -> None:
    for x, y in zip(leaves, values, strict=True):
        if 0 not in x.shape:  # Dask cannot assign to an empty array
            x[...] = y
