"""``Ops`` for JAX: the norm of ordinary gradients by one read of each.

Sums of powers run in float32 (float64 for float64 leaves) as they are. Whether one could have overflowed, or lost
something by underflow, shows in the sum. On a CPU, ``lax.cond`` then reads the leaves again, brought into range first;
under ``vmap`` a condition of its own for each example makes ``cond`` a ``select``, and both ways are computed: right
all the same, for twice the reads. Accelerators would wait for the host at a condition, and have arithmetic to spare:
there the same read gives the sums of leaves brought into range, too.
"""

import math
from collections.abc import Sequence
from functools import partial as bind
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from gradclip import _dtypes
from gradclip import _namespace as ns
from gradclip._array_ops import ArrayOps
from gradclip._coefficient import Coefficient
from gradclip._decision import Decision, Rule, decide_by_arrays
from gradclip._partial import NormPartial, rescale, root, safe_scale
from gradclip._types import AnyArray, AnyScalar, Axes
from gradclip.backends.jax._mesh import merge_over, owned, vary, varying
from gradclip.backends.jax._sums import joined, total_of, totals_of

# By whether sums are kept in float64:
_LOSS = {True: (2.0**-1022, 2.0**-58), False: (2.0**-126, 2.0**-28)}
"""What a power can lose by underflow, and which part of a sum may be lost."""

_FAR = {True: 2.0**600, False: 2.0**90}
"""Divided by this, nothing that is finite overflows as a square; multiplied by it, nothing that matters underflows."""

Pair: TypeAlias = tuple[AnyArray, AnyArray]
"""A scale and a sum of powers, or one of each for every leaf."""


class JaxOps(ArrayOps):
    """The operations of ``Ops`` for JAX arrays, traced or not; what is not here is ``ArrayOps``'.

    Parameters
    ----------
    dtype : dtype
        The dtype that sums, norms and coefficients are kept in: float64 if any leaf has it, else float32, with x64
        too: XLA adds up float32 in trees, and three times as fast.
    axes : tuple of str
        The mesh axes that the leaves are split over: ``partial`` and ``partials`` are merged along them.
    """

    def __init__(self, dtype: AnyArray, axes: tuple[str, ...] = ()) -> None:
        super().__init__(jnp)
        self.dtype = dtype
        self.axes = axes

    def decide(self, leaves: Sequence[AnyArray], rule: Rule) -> Decision:
        """Return the norm of all leaves laid end to end, and what they are to be multiplied by."""
        partial = self._local(leaves, rule.ord, together=True)
        return decide_by_arrays(self._merged(partial) if self.axes else partial, rule)

    def partial(self, leaves: Sequence[AnyArray], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end."""
        return self._merged(self._local(leaves, ord, together=True))

    def partials(self, leaves: Sequence[AnyArray], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        return self._merged(self._local(leaves, ord, together=False))

    def scale(self, leaves: Sequence[AnyArray], coefficients: Sequence[Coefficient]) -> list[AnyArray]:
        """Return each leaf times its coefficient; one of all leaves is computed once."""
        first = coefficients[0]
        if first.factor.ndim or first.zeroed is not None or any(c is not first for c in coefficients):
            return super().scale(leaves, coefficients)
        multipliers = lax.platform_dependent(
            first.factor, first.divisor, first.changed, cpu=_if_changed, default=_at_once
        )
        return [_multiplied(x, *multipliers) if _is_real(x) else self._scale(x, first) for x in leaves]

    def clamp(self, leaves: Sequence[AnyArray], low: AnyScalar, high: AnyScalar) -> list[AnyArray]:
        """Return each leaf with its elements moved into the bounds, which may be traced; NaN bounds spread."""
        return [self._clamp(x, _within(x, low), _within(x, high)) for x in leaves]

    def _clamp(self, leaf: AnyArray, low: AnyScalar, high: AnyScalar) -> AnyArray:
        (x,) = super().clamp([leaf], low, high)
        for bound in (low, high):
            x = jnp.where(jnp.isnan(bound), jnp.asarray(bound, dtype=x.dtype), x)
        return x

    def _local(self, leaves: Sequence[AnyArray], ord: float, together: bool) -> NormPartial:
        """Return the partial of all leaves together or of each, of what lies here."""
        if ord in (1, 2, math.inf):
            pair = self._as_they_are(leaves, ord, together)
        else:  # two reads at once, for the derivative of a power that overflows would be inf, and inf · 0 is NaN
            pair = self._by_peaks(leaves, ord, together)
        return NormPartial(*pair, ord, self.dtype)

    def _merged(self, local: NormPartial) -> NormPartial:
        """Return a partial over all devices, which can be merged with others."""
        partial = _balanced(local)
        return merge_over(partial, self.axes) if self.axes else partial

    def _as_they_are(self, leaves: Sequence[AnyArray], ord: float, together: bool) -> Pair:
        """Return the scale and the sum of powers of leaves as they are; where that is not right, in range."""
        if ord == math.inf:  # nothing is added up that could overflow
            total = self._sums(leaves, None, ord, together)
            return jnp.ones_like(total), total
        arrays = joined(leaves) if together else leaves
        ways = {name: bind(way, ord, together) for name, way in (("cpu", self._on_need), ("default", self._at_once))}

        @jax.custom_jvp
        def pair(*leaves: AnyArray) -> Pair:
            found: Pair = lax.platform_dependent(*leaves, **ways)
            return found

        @pair.defjvp
        def derivative(leaves: Sequence[AnyArray], changes: Sequence[AnyArray]) -> tuple[Pair, Pair]:
            scale, total = pair(*leaves)  # of the sum that was chosen, for that of another may be inf, and inf · 0 NaN
            unit = lax.stop_gradient(1 / scale)
            change = jax.jvp(lambda *xs: self._sums(xs, unit, ord, together), tuple(leaves), tuple(changes))[1]
            return (scale, total), (jnp.zeros_like(scale), change)

        return pair(*arrays)

    def _on_need(self, ord: float, together: bool, *leaves: AnyArray) -> Pair:
        """Read the leaves once, and only if that was not right once more."""
        total = self._sums(leaves, None, ord, together)
        right, scale = self._judged(total, leaves)
        found: Pair = lax.cond(
            jnp.all(right),
            lambda: (jnp.ones_like(total), total),
            lambda: (scale, self._sums(leaves, 1 / scale, ord, together)),
        )
        return found

    def _at_once(self, ord: float, together: bool, *leaves: AnyArray) -> Pair:
        """Read the leaves once, for three sums, two of which are brought into range, and choose one of the three."""
        far = _FAR[_dtypes.is_double(self.dtype)]
        shape = () if together else (len(leaves),)
        # Behind a barrier, for XLA would square what it knows, and that is out of range.
        units = lax.optimization_barrier(tuple(jnp.full(shape, value, dtype=self.dtype) for value in (1 / far, far)))
        total, low, high = (self._sums(leaves, unit, ord, together) for unit in (None, *units))
        right, scale = self._judged(total, leaves)
        return scale, jnp.where(right, total, jnp.where(scale > 1, low, high))

    def _judged(self, total: AnyArray, leaves: Sequence[AnyArray]) -> tuple[AnyArray, AnyArray]:
        """Return where sums of powers of leaves as they are are right, and what to divide the leaves by elsewhere."""
        double = _dtypes.is_double(self.dtype)
        tiny, share = _LOSS[double]
        sizes = list(map(ns.numel, leaves))
        counts = jnp.asarray(sizes if total.ndim else sum(sizes), dtype=self.dtype)
        enough = total >= counts * (tiny / share)
        right = jnp.isfinite(total) & enough
        scale = jnp.where(right, 1.0, jnp.where(enough, _FAR[double], 1 / _FAR[double]))
        return right, lax.stop_gradient(scale.astype(self.dtype))

    def _sums(self, leaves: Sequence[AnyArray], unit: AnyArray | None, ord: float, together: bool) -> AnyArray:
        """Return the sum of powers of all leaves or of each, times a unit or one for each if there is one."""
        of = total_of if together else totals_of
        total: AnyArray = of(tuple(leaves), unit, ord=ord, dtype=jnp.dtype(self.dtype).name, axes=self.axes)
        return total

    def _by_peaks(self, leaves: Sequence[AnyArray], ord: float, together: bool) -> Pair:
        """Return the scale and the sum of powers of leaves that are divided by their largest elements first."""
        batch = super().partials(leaves, ord)
        totals = [owned(batch.total[i], x, self.axes) for i, x in enumerate(leaves)]
        if not together:
            return batch.scale, jnp.stack(totals)
        scale = jnp.max(batch.scale)
        terms = rescale(jnp, jnp.stack(totals), batch.scale / scale, ord)
        return scale, jnp.sum(terms)

    def _wide(self, x: AnyArray) -> AnyArray:  # noqa: ARG002  # all leaves of a tree have one
        return self.dtype

    def _safe_scale(self, parts: Sequence[AnyArray], axes: Axes | None) -> AnyArray:
        # A norm does not depend on what its parts were divided by: its derivative need not pass there.
        return lax.stop_gradient(super()._safe_scale(parts, axes))


def _is_real(x: AnyArray) -> bool:
    return not _dtypes.is_complex(x.dtype) and not _dtypes.is_narrow(x.dtype)


def _multiplied(x: AnyArray, first: AnyArray, second: AnyArray, changed: AnyArray) -> AnyArray:
    """Return what `ArrayOps` does, in three operations, or five with a cast: each is compiled for each leaf."""
    wide = x if x.dtype == first.dtype else lax.convert_element_type(x, first.dtype)
    y = wide * first * second
    return lax.select_n(changed, x, y if y.dtype == x.dtype else lax.convert_element_type(y, x.dtype))


def _if_changed(factor: AnyArray, divisor: AnyArray, changed: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Return what leaves are multiplied by, and whether: behind a condition, out of which XLA fuses nothing.

    It would compute all that leads to a number anew for each leaf; compiling 400 took twice as long.
    """
    axes = varying(factor) | varying(divisor) | varying(changed)

    def decided(first: AnyArray, second: AnyArray, clipped: bool) -> tuple[AnyArray, AnyArray, AnyArray]:
        return vary(first, axes), vary(second, axes), vary(jnp.asarray(clipped), axes)

    one = jnp.ones((), dtype=factor.dtype)
    chosen: tuple[AnyArray, AnyArray, AnyArray] = lax.cond(
        changed,
        lambda: decided(*Coefficient(divisor, factor, changed).multipliers, True),
        lambda: decided(one, one, False),
    )
    return chosen


def _at_once(factor: AnyArray, divisor: AnyArray, changed: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Return what leaves are multiplied by, and whether."""
    return (*Coefficient(divisor, factor, changed).multipliers, changed)


def _balanced(partial: NormPartial) -> NormPartial:
    """Return a partial whose scale is about its norm, so that merging it squares no ratio out of range.

    The scale is a power of two: no bit of the norm changes.
    """
    near = safe_scale(jnp, partial.scale * root(jnp, partial.total, partial.ord))
    exponent_bits = 11 if _dtypes.is_double(near.dtype) else 8
    scale = lax.stop_gradient(lax.reduce_precision(near, exponent_bits, 0))
    ratio = jnp.where(partial.total == 0, 1.0, partial.scale / scale)  # whose power may be inf, and 0 · inf is NaN
    total = rescale(jnp, partial.total, ratio, partial.ord)
    return NormPartial(scale, total, partial.ord, partial.dtype)


def _within(x: AnyArray, bound: AnyScalar) -> AnyScalar:
    """Return a bound that is finite in the leaf's dtype if it is finite."""
    if isinstance(bound, float):
        return bound
    most = min(_dtypes.largest(x.dtype), _dtypes.largest(bound.dtype))
    return jnp.where(jnp.isfinite(bound), jnp.clip(bound, -most, most), bound)
