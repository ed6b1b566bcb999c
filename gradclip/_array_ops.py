"""``Ops`` for any namespace of the Array API standard.

A leaf is widened to the accumulation dtype (float64, or float32 if the device has no float64) one chunk at a time. So
no copy of a leaf is made if slices of it can be written. Lazy and traced leaves are not cut into chunks, because their
compilers fuse the operations below into one pass. Nor are leaves whose derivatives are recorded, because the record
would keep every widened chunk.
"""

import math
from collections.abc import Sequence

from gradclip import _dtypes
from gradclip import _namespace as ns
from gradclip._chunks import Box, boxes, halve, numel, whole
from gradclip._coefficient import Coefficient
from gradclip._decision import Decision, Rule, decide_by_arrays
from gradclip._limits import DEVICE_CHUNK_NUMEL, HOST_CHUNK_NUMEL
from gradclip._ops import OfArrays
from gradclip._partial import NormPartial, concat, merge_elements, stack
from gradclip._powers import reduce_powers, root, safe_scale
from gradclip._types import AnyArray, AnyScalar, Axes, Namespace


class ArrayOps(OfArrays):
    """The operations of ``Ops`` for one namespace.

    Parameters
    ----------
    xp : namespace
        The namespace of the leaves, as array_api_compat returns it.
    """

    def __init__(self, xp: Namespace) -> None:
        self.xp = xp

    def decide(self, leaves: Sequence[AnyArray], rule: Rule) -> Decision:
        """Return the norm of all leaves laid end to end and the coefficient."""
        return decide_by_arrays(self.partial(leaves, rule.ord), rule)

    def partial(self, leaves: Sequence[AnyArray], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end."""
        return merge_elements(self.partials(leaves, ord))

    def partials(self, leaves: Sequence[AnyArray], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        return stack([self._whole(x, ord) for x in leaves])

    def partial_along(self, leaf: AnyArray, ord: float, axes: Axes) -> NormPartial:
        """Return the partial norms of one leaf's slices, merged from those of chunks."""
        return self._piece(leaf, ord, axes) if ns.is_whole(leaf) else self._box(leaf, whole(leaf.shape), ord, axes)

    def scale(self, leaves: Sequence[AnyArray], coefficients: Sequence[Coefficient]) -> list[AnyArray]:
        """Return each leaf times its coefficient."""
        return [self._scale(x, self._there(c, x)) for x, c in zip(leaves, coefficients, strict=True)]

    def scale_(self, leaves: Sequence[AnyArray], coefficients: Sequence[Coefficient]) -> None:
        """Multiply each leaf by its coefficient in place; on a host, write only leaves that change."""
        for x, c in zip(leaves, coefficients, strict=True):
            if _may_change(self.xp, x, c.changed):
                self._write(x, self._there(c, x))

    def scaled_sum(self, leaf: AnyArray, coefficient: Coefficient) -> AnyArray:
        """Return the sum over the leading axis of ``leaf`` times ``coefficient``."""
        xp = self.xp
        coefficient = coefficient.leading(leaf.ndim)
        if ns.is_whole(leaf) or ns.numel(leaf) <= _chunk_numel(leaf) or leaf.shape[0] < 2:
            terms = scaled(xp, leaf, coefficient)
            return xp.astype(ns.as_array(xp.sum(terms, axis=0, dtype=terms.dtype)), leaf.dtype)
        rows = max(1, _chunk_numel(leaf) // (ns.numel(leaf) // leaf.shape[0]))
        total = None
        for start in range(0, leaf.shape[0], rows):
            part = slice(start, start + rows)
            terms = xp.sum(scaled(xp, leaf[part, ...], coefficient[part, ...]), axis=0)
            total = terms if total is None else total + terms
        return xp.astype(ns.as_array(total), leaf.dtype)

    def clamp(self, leaves: Sequence[AnyArray], low: AnyScalar, high: AnyScalar) -> list[AnyArray]:
        """Return each leaf with its elements moved into the bounds."""
        return [ns.as_array(_clamped(self.xp, x, bounds_for(self.xp, x, low, high))) for x in leaves]

    def clamp_(self, leaves: Sequence[AnyArray], low: AnyScalar, high: AnyScalar) -> None:
        """Move each leaf's elements into the bounds, chunk by chunk."""
        for x in leaves:
            bounds = bounds_for(self.xp, x, low, high)
            for key in _keys(x):
                x[key] = _clamped(self.xp, x[key], bounds)

    def apart(self, leaves: Sequence[AnyArray]) -> bool:  # noqa: ARG002  # the standard knows no addresses
        """Whether it is known that no two elements of leaves share memory: it is not."""
        return False

    def _whole(self, x: AnyArray, ord: float) -> NormPartial:
        if ns.is_whole(x):
            return self._piece(x, ord)
        partial = self._box(x, whole(x.shape), ord, tuple(range(x.ndim)))
        scale, total = (self.xp.reshape(part, ()) for part in (partial.scale, partial.total))
        return NormPartial(scale, total, ord, partial.dtype)

    def _box(self, x: AnyArray, box: Box, ord: float, axes: Axes) -> NormPartial:
        """Return the partial norms of a box from those of its halves: merged if the cut is in ``axes``, else joined."""
        if numel(box) <= _chunk_numel(x):
            return self._piece(x[box] if box else x, ord, axes)
        axis, *halves = halve(box)
        first, second = (self._box(x, half, ord, axes) for half in halves)
        return first.merge(second) if axis in axes else concat(first, second, axis)

    def _piece(self, x: AnyArray, ord: float, axes: Axes | None = None) -> NormPartial:
        """Return the partial norm of a chunk, or of a leaf that is not cut."""
        xp = self.xp
        dtype = _dtypes.norm_dtype(xp, x)
        wide = self._wide(x)
        if 0 in x.shape:
            zero = _reduced_zeros(xp, x, wide, axes)
            return NormPartial(zero + 1, zero, ord, dtype)
        parts = [xp.real(x), xp.imag(x)] if _dtypes.is_complex(x.dtype) else [x]
        parts = [xp.astype(part, wide) for part in parts]
        if _fits(x, wide, ord):  # the powers of all elements are in the range of the accumulation dtype
            total = reduce_powers(xp, magnitudes(xp, parts), ord, axes)
            return NormPartial(xp.ones_like(total), total, ord, dtype)
        scale = self._safe_scale(parts, axes)
        total = reduce_powers(xp, magnitudes(xp, [part / scale for part in parts]), ord, axes)
        return NormPartial(scale, total, ord, dtype)

    def _wide(self, x: AnyArray) -> AnyArray:
        """Return the dtype in which a leaf's powers are added."""
        return ns.wide_dtype(self.xp, x)

    def _there(self, c: Coefficient, x: AnyArray) -> Coefficient:
        """Return a coefficient as arrays on a leaf's device."""
        return c.arrays(self.xp, self._wide(x), ns.device(x))

    def _safe_scale(self, parts: Sequence[AnyArray], axes: Axes | None) -> AnyArray:
        """Return the scale to divide an array by. The array is given as one part, or as real and imaginary parts."""
        xp = self.xp
        peaks = [ns.peak(xp, xp.abs(part), axes) for part in parts]
        return safe_scale(xp, peaks[0] if len(peaks) == 1 else xp.where(peaks[0] >= peaks[1], peaks[0], peaks[1]))

    def _scale(self, x: AnyArray, c: Coefficient) -> AnyArray:
        xp = self.xp
        if not _may_change(xp, x, c.changed):
            return x
        if not ns.is_whole(x) and ns.is_writable(x) and ns.numel(x) > _chunk_numel(x):
            out = xp.asarray(x, copy=True)
            self._write(out, c)
            return out
        return ns.as_array(_finished(xp, x, c))

    def _write(self, x: AnyArray, c: Coefficient) -> None:
        for key in _keys(x):
            x[key] = _finished(self.xp, x[key], c[_fit(c.factor.shape, key)] if c.factor.ndim else c)


def scaled(xp: Namespace, x: AnyArray, c: Coefficient) -> AnyArray:
    """Return ``x`` times a coefficient, in the accumulation dtype."""
    y = _multiplied(xp, x, c)
    return xp.where(c.changed, y, xp.astype(x, y.dtype))


def _multiplied(xp: Namespace, x: AnyArray, c: Coefficient) -> AnyArray:
    wide = c.factor.dtype
    if _dtypes.is_complex(x.dtype):
        wide = xp.complex128 if _dtypes.is_double(wide) else xp.complex64
    first, second = c.multipliers
    y = xp.astype(x, wide) * first * second
    return y if c.zeroed is None else xp.where(c.zeroed, xp.zeros_like(y), y)


def _finished(xp: Namespace, x: AnyArray, c: Coefficient) -> AnyArray:
    """Return ``x`` times a coefficient in its own dtype, rounded once. Unchanged elements are not even cast."""
    if _dtypes.is_narrow(x.dtype):  # `where` does not take these in some frameworks; a cast and back keeps every value
        return xp.astype(scaled(xp, x, c), x.dtype)
    same = _native(xp, x)
    return _typed(xp, xp.where(c.changed, xp.astype(_multiplied(xp, x, c), same.dtype), same), x.dtype)


def _native(xp: Namespace, x: AnyArray) -> AnyArray:
    """Return ``x`` in the machine's byte order: arithmetic on bfloat16 of another byte order is wrong."""
    return x if _dtypes.is_native(x.dtype) else xp.astype(x, x.dtype.newbyteorder("="))


def _typed(xp: Namespace, x: AnyArray, dtype: AnyArray) -> AnyArray:
    """Return ``x`` cast to a dtype, which may differ in its byte order only."""
    return x if x.dtype == dtype else xp.astype(x, dtype)


def magnitudes(xp: Namespace, parts: Sequence[AnyArray]) -> AnyArray:
    """Return the absolute values of an array, given as one part, or as real and imaginary parts."""
    if len(parts) == 1:
        return xp.abs(parts[0])
    return root(xp, parts[0] * parts[0] + parts[1] * parts[1], 2)


def _fits(x: AnyArray, wide: AnyArray, ord: float) -> bool:
    return _dtypes.is_double(wide) and not _dtypes.is_double(x.dtype) and (1 <= ord <= 4 or ord == math.inf)


def _may_change(xp: Namespace, x: AnyArray, changed: AnyArray) -> bool:
    """Whether a leaf may change. On a host the value is read; elsewhere it may."""
    if isinstance(changed, bool):
        return changed
    try:
        return not ns.is_host(x) or bool(xp.any(changed))
    except RuntimeError:  # traced by a transform of torch.func
        return True


def _chunk_numel(x: AnyArray) -> int:
    numel = HOST_CHUNK_NUMEL if ns.is_host(x) else DEVICE_CHUNK_NUMEL
    return max(1, numel // 2) if _dtypes.is_complex(x.dtype) else numel


def _keys(x: AnyArray) -> Sequence[object]:
    """Return the index of each chunk of a leaf; one index for the whole leaf if it is lazy."""
    return [...] if ns.is_lazy(x) else list(boxes(x.shape, _chunk_numel(x)))


def _fit(shape: tuple[int, ...], key: object) -> object:
    """Return the index of a chunk for an array of ``shape``, which broadcasts along its axes of length 1."""
    return (
        tuple(slice(None) if n == 1 else k for n, k in zip(shape, key, strict=True)) if isinstance(key, tuple) else key
    )


def bounds_for(xp: Namespace, x: AnyArray, low: AnyScalar, high: AnyScalar) -> tuple[AnyArray, AnyArray]:
    """Return the bounds in the leaf's dtype and the machine's byte order, limited to its range (see `limited`)."""
    dtype = x.dtype if _dtypes.is_native(x.dtype) else x.dtype.newbyteorder("=")
    return tuple(
        xp.asarray(limited(bound, dtype), dtype=dtype, device=ns.device(x))
        if isinstance(bound, float)
        else ns.to_device(xp.astype(_limited(xp, bound, dtype), dtype), ns.device(x))
        for bound in (low, high)
    )


def limited(bound: float, dtype: object) -> float:
    """Return a bound limited to a dtype's finite range. An infinite bound stays if the dtype has infinity."""
    most = _dtypes.largest(dtype)
    return max(-most, min(most, bound)) if math.isfinite(bound) or not _dtypes.has_infinity(dtype) else bound


def _limited(xp: Namespace, bound: AnyArray, dtype: object) -> AnyArray:
    """Return what `limited` returns, for a bound that is an array and is not read."""
    most = _dtypes.largest(dtype)
    if most >= _dtypes.largest(bound.dtype):
        return bound
    near = _between(xp, bound, xp.full_like(bound, -most), xp.full_like(bound, most))
    return xp.where(xp.isfinite(bound), near, bound) if _dtypes.has_infinity(dtype) else near


def _clamped(xp: Namespace, x: AnyArray, bounds: tuple[AnyArray, AnyArray]) -> AnyArray:
    if _dtypes.is_narrow(x.dtype):  # some frameworks cannot compare these; float32 represents all their values
        wide = (xp.astype(values, xp.float32) for values in (x, *bounds))
        return xp.astype(_between(xp, *wide), x.dtype)
    return _typed(xp, _between(xp, _native(xp, x), *bounds), x.dtype)


def _between(xp: Namespace, x: AnyArray, low: AnyArray, high: AnyArray) -> AnyArray:
    return xp.where(x < low, low, xp.where(x > high, high, x))  # NaN is neither below nor above


def _reduced_zeros(xp: Namespace, x: AnyArray, dtype: AnyArray, axes: Axes | None) -> AnyArray:
    shape = () if axes is None else tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    return xp.zeros(shape, dtype=dtype, device=ns.device(x))
