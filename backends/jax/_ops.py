"""``Ops`` for JAX: one read of each leaf gives the norm of ordinary gradients.

Powers are added in float32 (float64 for float64 leaves). The sum shows whether a power may have overflowed or
underflowed. If so, leaves are multiplied by a power of two that brings them into range. On a CPU, ``lax.cond`` reads
them a second time. Under ``vmap``, JAX replaces ``cond`` by ``select``: both branches are computed, so that the result
is right, with two reads. On an accelerator, ``cond`` would wait for the host, and arithmetic is cheap there: one read
computes the sums of leaves without a factor, multiplied by a small one, and by a large one.
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
from gradclip._partial import NormPartial
from gradclip._powers import rescale, root, safe_scale
from gradclip._types import AnyArray, AnyScalar, Axes
from gradclip.backends.jax._mesh import merge_over, merge_units_over, owned, vary, varying
from gradclip.backends.jax._sums import joined, total_of, totals_of

_FAR = {True: 2.0**600, False: 2.0**90}
"""For sums in float64 (True) or float32: divided by this, the square of no finite number overflows; multiplied by it,
no square that matters underflows."""

Pair: TypeAlias = tuple[AnyArray, AnyArray]
"""A scale and a sum of powers: 0-d, or of shape (number of leaves,)."""


class JaxOps(ArrayOps):
    """The operations of ``Ops`` for JAX arrays, traced or not. Other operations are inherited from ``ArrayOps``.

    Parameters
    ----------
    dtype : dtype
        The dtype of sums, norms and coefficients: float64 if any leaf is float64 or complex128, else float32, also with
        x64 enabled: XLA adds float32 numbers in trees, three times as fast as float64.
    axes : tuple of str
        The mesh axes that the leaves are split over: all partial norms are merged along them.
    """

    def __init__(self, dtype: AnyArray, axes: tuple[str, ...] = ()) -> None:
        super().__init__(jnp)
        self.dtype = dtype
        self.axes = axes

    def decide(self, leaves: Sequence[AnyArray], rule: Rule) -> Decision:
        """Return the norm of all leaves laid end to end and the coefficient."""
        partial = self._local(leaves, rule.ord, together=True)
        return decide_by_arrays(self._merged(partial) if self.axes else partial, rule)

    def partial(self, leaves: Sequence[AnyArray], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end."""
        return self._merged(self._local(leaves, ord, together=True))

    def partials(self, leaves: Sequence[AnyArray], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        return self._merged(self._local(leaves, ord, together=False))

    def partial_along(self, leaf: AnyArray, ord: float, axes: Axes) -> NormPartial:
        """Return the partial norms of one leaf's slices."""
        local = super().partial_along(leaf, ord, axes)
        if not self.axes:
            return local
        total = owned(local.total, leaf, self.axes)
        return merge_units_over(NormPartial(local.scale, total, ord, local.dtype), self.axes)

    def scale(self, leaves: Sequence[AnyArray], coefficients: Sequence[Coefficient]) -> list[AnyArray]:
        """Return each leaf times its coefficient. If all leaves have the same one, it is computed once."""
        first = coefficients[0]
        if first.factor.ndim or first.zeroed is not None or any(c is not first for c in coefficients):
            return super().scale(leaves, coefficients)
        multipliers = lax.platform_dependent(
            first.factor, first.divisor, first.changed, cpu=_if_changed, default=_at_once
        )
        return [_multiplied(x, *multipliers) if _is_real(x) else self._scale(x, first) for x in leaves]

    def clamp(self, leaves: Sequence[AnyArray], low: AnyScalar, high: AnyScalar) -> list[AnyArray]:
        """Return each leaf with its elements limited to the bounds, which may be traced; NaN bounds give NaN."""
        return [self._clamp(x, _within(x, low), _within(x, high)) for x in leaves]

    def _clamp(self, leaf: AnyArray, low: AnyScalar, high: AnyScalar) -> AnyArray:
        (x,) = super().clamp([leaf], low, high)
        for bound in (low, high):
            x = jnp.where(jnp.isnan(bound), jnp.asarray(bound, dtype=x.dtype), x)
        return x

    def _local(self, leaves: Sequence[AnyArray], ord: float, together: bool) -> NormPartial:
        """Return the partial norm of all leaves (``together``) or one for each, of this device's parts only."""
        if ord in (1, 2, math.inf):
            pair = self._as_they_are(leaves, ord, together)
        else:  # always two reads: the derivative of a power that overflows would be inf, and inf · 0 is NaN
            pair = self._by_peaks(leaves, ord, together)
        return NormPartial(*pair, ord, self.dtype)

    def _merged(self, local: NormPartial) -> NormPartial:
        """Return the partial norm merged over all devices, with a scale near the norm."""
        partial = _balanced(local)
        return merge_over(partial, self.axes) if self.axes else partial

    def _as_they_are(self, leaves: Sequence[AnyArray], ord: float, together: bool) -> Pair:
        """Return the scale and the sum of powers: scale 1 if the sum without a factor is right, else another scale."""
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
            scale, total = pair(*leaves)  # of the chosen sum only: another one's may be inf, and inf · 0 is NaN
            multiplier = lax.stop_gradient(1 / scale)
            change = jax.jvp(lambda *xs: self._sums(xs, multiplier, ord, together), tuple(leaves), tuple(changes))[1]
            return (scale, total), (jnp.zeros_like(scale), change)

        return pair(*arrays)

    def _on_need(self, ord: float, together: bool, *leaves: AnyArray) -> Pair:
        """Read the leaves once, and a second time only if the first sum is not right."""
        total = self._sums(leaves, None, ord, together)
        right, scale = self._judged(total, leaves)
        found: Pair = lax.cond(
            jnp.all(right),
            lambda: (jnp.ones_like(total), total),
            lambda: (scale, self._sums(leaves, 1 / scale, ord, together)),
        )
        return found

    def _at_once(self, ord: float, together: bool, *leaves: AnyArray) -> Pair:
        """Read the leaves once for three sums: without a factor, with a small and a large one. Choose the right one."""
        far = _FAR[_dtypes.is_double(self.dtype)]
        shape = () if together else (len(leaves),)
        # Behind a barrier, for XLA would square what it knows, and that is out of range.
        multipliers = lax.optimization_barrier(
            tuple(jnp.full(shape, value, dtype=self.dtype) for value in (1 / far, far))
        )
        total, low, high = (self._sums(leaves, multiplier, ord, together) for multiplier in (None, *multipliers))
        right, scale = self._judged(total, leaves)
        return scale, jnp.where(right, total, jnp.where(scale > 1, low, high))

    def _judged(self, total: AnyArray, leaves: Sequence[AnyArray]) -> tuple[AnyArray, AnyArray]:
        """Return whether each sum of powers is right, and the scale to divide the leaves by: 1 if it is."""
        double = _dtypes.is_double(self.dtype)
        sizes = list(map(ns.numel, leaves))
        counts = jnp.asarray(sizes if total.ndim else sum(sizes), dtype=self.dtype)
        enough = total >= counts * _dtypes.TRUSTED_SUM[double]
        right = jnp.isfinite(total) & enough
        scale = jnp.where(right, 1.0, jnp.where(enough, _FAR[double], 1 / _FAR[double]))
        return right, lax.stop_gradient(scale.astype(self.dtype))

    def _sums(self, leaves: Sequence[AnyArray], multiplier: AnyArray | None, ord: float, together: bool) -> AnyArray:
        """Return the sum of powers of all leaves (``together``) or of each, times ``multiplier`` if it is not None."""
        of = total_of if together else totals_of
        total: AnyArray = of(tuple(leaves), multiplier, ord=ord, dtype=jnp.dtype(self.dtype).name, axes=self.axes)
        return total

    def _by_peaks(self, leaves: Sequence[AnyArray], ord: float, together: bool) -> Pair:
        """Return the scale and the sum of powers of leaves, each divided by its largest element before."""
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
    """Return ``x`` times both factors if ``changed``: as `ArrayOps` does, in three operations, or five with a cast."""
    wide = x if x.dtype == first.dtype else lax.convert_element_type(x, first.dtype)
    y = wide * first * second
    return lax.select_n(changed, x, y if y.dtype == x.dtype else lax.convert_element_type(y, x.dtype))


def _if_changed(factor: AnyArray, divisor: AnyArray, changed: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Return the two factors of leaves and whether to multiply, from ``lax.cond``, out of which XLA fuses nothing.

    Without it, XLA computes the coefficient again for each leaf; compiling 400 leaves took twice as long.
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
    """Return the two factors of leaves and whether to multiply."""
    return (*Coefficient(divisor, factor, changed).multipliers, changed)


def _balanced(partial: NormPartial) -> NormPartial:
    """Return a partial norm with a scale near the norm, so that no squared ratio of scales overflows in a merge.

    The scale is a power of two: no bit of the norm changes.
    """
    near = safe_scale(jnp, partial.scale * root(jnp, partial.total, partial.ord))
    exponent_bits = 11 if _dtypes.is_double(near.dtype) else 8
    scale = lax.stop_gradient(lax.reduce_precision(near, exponent_bits, 0))
    ratio = jnp.where(partial.total == 0, 1.0, partial.scale / scale)  # its power may be inf, and 0 · inf is NaN
    total = rescale(jnp, partial.total, ratio, partial.ord)
    return NormPartial(scale, total, partial.ord, partial.dtype)


def _within(x: AnyArray, bound: AnyScalar) -> AnyScalar:
    """Return a bound that is finite in the leaf's dtype if it is finite."""
    if isinstance(bound, float):
        return bound
    most = min(_dtypes.largest(x.dtype), _dtypes.largest(bound.dtype))
    return jnp.where(jnp.isfinite(bound), jnp.clip(bound, -most, most), bound)
