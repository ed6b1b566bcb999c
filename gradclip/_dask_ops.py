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
from gradclip._array_ops import ArrayOps, scaled
from gradclip._calls import quiet
from gradclip._coefficient import Coefficient
from gradclip._limits import MERGE_AT_ONCE
from gradclip._numpy_ops import numpy_ops
from gradclip._ops import Ops, Slices, ToCoefficient
from gradclip._partial import NormPartial, merge_elements, stack
from gradclip._types import AnyArray, AnyScalar, Axes


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

    def coefficient_along(
        self, function: ToCoefficient, ndim: int, slices: Sequence[Slices], *numbers: AnyScalar
    ) -> Coefficient:
        """Return ``function(partials, *numbers)``, one operation for the partial norms of all slices."""
        first, kept = slices[0][0], [axis for axis in range(ndim) if axis not in slices[0][1]]
        chunks = {axis: first.chunks[axis] for axis in kept}
        merged = [self._merged(_rechunked(x, chunks), 2.0, axes) for x, axes in slices]
        args = [arg for x in merged for arg in (x, tuple(range(x.ndim)))]
        args += [arg for y in numbers for arg in (y, () if ns.is_lazy(y) else None)]
        function, meta = partial(_coefficient, function=function, count=len(slices)), _numbers_like(first._meta)
        made = self.xp.blockwise(function, tuple(range(ndim)), *args, dtype=self.xp.float64, meta=meta)
        fields = (_divisor_of, self.xp.float64), (_factor_of, self.xp.float64), (_changed_of, self.xp.bool)
        return Coefficient(*(self._by_chunk(field, made, dtype) for field, dtype in fields))

    def scaled_sum(self, leaf: AnyArray, coefficient: Coefficient) -> AnyArray:
        """Return the sum over the leading axis of ``leaf`` times ``coefficient``."""
        if 0 in leaf.shape:  # Dask cannot sum an empty array of several chunks
            return self.xp.zeros(leaf.shape[1:], dtype=leaf.dtype)
        axes = tuple(range(leaf.ndim))
        args = [arg for y in (coefficient.divisor, coefficient.factor, coefficient.changed) for arg in (y, (0,))]
        wide = self.xp.complex128 if _dtypes.is_complex(leaf.dtype) else self.xp.float64
        sums = self.xp.blockwise(
            _scaled_sum, axes, leaf, axes, *args, dtype=wide, meta=leaf._meta, adjust_chunks={0: 1}
        )
        return self.xp.sum(sums, axis=0, dtype=wide).astype(leaf.dtype)

    def elementwise(self, function: Callable[..., AnyArray], leaf: AnyArray, *others: AnyScalar) -> AnyArray:
        """Return ``function(leaf, *others)``, made by one operation for each chunk."""
        return self._by_chunk(partial(_of_chunks, function=function), leaf, leaf.dtype, *others)

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


@quiet
def _partial(
    x: AnyArray, axis: Axes, ord: float, whole: bool, computing_meta: bool = False, **_: object
) -> AnyArray | NormPartial:
    """Return the partial norm of a chunk, 0-d if it is that of a whole leaf."""
    if computing_meta:
        return _numbers_like(x)
    x, ops = _chunk(x)
    return ops.partial([x], ord) if whole else ops.partial_along(x, ord, axis)


@quiet
def _merge(parts: Any, **_: object) -> NormPartial:
    """Return the partial norm of some chunks, from theirs in lists within lists, in order."""
    return reduce(NormPartial.merge, _flat(parts))


@quiet
def _merged_pair(*parts: NormPartial) -> AnyArray:
    """Return scale and total of leaves together: shape (2,)."""
    return _pair(merge_elements(stack(parts)))


@quiet
def _pairs(*parts: NormPartial) -> AnyArray:
    """Return scale and total of each leaf: shape (number of leaves, 2)."""
    return _pair(stack(parts))


def _pair(part: NormPartial) -> AnyArray:
    return ns.namespace([part.total]).stack([part.scale, part.total], axis=-1)


def _scale_of(part: NormPartial) -> AnyArray:
    return part.scale


def _total_of(part: NormPartial) -> AnyArray:
    return part.total


@quiet
def _coefficient(*parts: Any, function: ToCoefficient, count: int) -> Coefficient:
    """Return the coefficients of a chunk of slices, from that many partial norms, and from numbers."""
    return function(list(_flat(parts[:count])), *map(ns.as_array, parts[count:]))


def _divisor_of(c: Coefficient) -> AnyScalar:
    return c.divisor


def _factor_of(c: Coefficient) -> AnyScalar:
    return c.factor


def _changed_of(c: Coefficient) -> AnyArray:
    return c.changed


def _of_chunks(*arrays: AnyArray, function: Callable[..., AnyArray]) -> AnyArray:
    return function(*map(ns.as_array, arrays))


@quiet
def _scaled_sum(x: AnyArray, *numbers: AnyArray) -> AnyArray:
    """Return the sum of a chunk's examples times their coefficients, before it is rounded; its length is 1."""
    xp = ns.namespace([x])
    return xp.sum(scaled(xp, x, Coefficient(*numbers).leading(x.ndim)), axis=0, keepdims=True)


@quiet
def _scaled(x: AnyArray, *numbers: Any) -> AnyArray:
    """Return a chunk times its coefficient, of which ``numbers`` are the fields."""
    x, ops = _chunk(x)
    return ops.scale([x], [Coefficient(*map(ns.as_array, numbers))])[0]


@quiet
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
        ns.assign(x, y)


def _rechunked(x: AnyArray, chunks: dict[int, tuple[int, ...]]) -> AnyArray:
    """Return an array with these chunks along some axes, the same array if it has them."""
    return x if all(x.chunks[axis] == sizes for axis, sizes in chunks.items()) else x.rechunk(chunks)
