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

from gradclip import _namespace as ns
from gradclip._array_ops import ArrayOps, magnitudes
from gradclip._partial import NormPartial, reduce_powers, rescale, root, safe_scale
from gradclip._types import Array, Axes, Scalar
from gradclip.backends.jax._mesh import merge_over, owned

# By whether sums are kept in float64:
_LOSS = {True: (2.0**-1022, 2.0**-58), False: (2.0**-126, 2.0**-28)}
"""What a power can lose by underflow, and which part of a sum may be lost."""

_FAR = {True: 2.0**600, False: 2.0**90}
"""Divided by this, nothing that is finite overflows as a square; multiplied by it, nothing that matters underflows."""

Pair: TypeAlias = tuple[Array, Array]
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

    def __init__(self, dtype: Array, axes: tuple[str, ...] = ()) -> None:
        super().__init__(jnp)
        self.dtype = dtype
        self.axes = axes

    def partial(self, leaves: Sequence[Array], ord: float) -> NormPartial:
        """Return the partial norm of all leaves laid end to end."""
        return self._partial(leaves, ord, together=True)

    def partials(self, leaves: Sequence[Array], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        return self._partial(leaves, ord, together=False)

    def clamp(self, leaves: Sequence[Array], low: Scalar, high: Scalar) -> list[Array]:
        """Return each leaf with its elements moved into the bounds, which may be traced; NaN bounds spread."""
        return [self._clamp(x, _within(x, low), _within(x, high)) for x in leaves]

    def _clamp(self, leaf: Array, low: Scalar, high: Scalar) -> Array:
        (x,) = super().clamp([leaf], low, high)
        for bound in (low, high):
            x = jnp.where(jnp.isnan(bound), jnp.asarray(bound, dtype=x.dtype), x)
        return x

    def _partial(self, leaves: Sequence[Array], ord: float, together: bool) -> NormPartial:
        """Return the partial of all leaves together or of each, over all devices."""
        if ord in (1, 2, math.inf):
            pair = self._as_they_are(leaves, ord, together)
        else:  # two reads at once, for the derivative of a power that overflows would be inf, and inf · 0 is NaN
            pair = self._by_peaks(leaves, ord, together)
        local = _balanced(NormPartial(*pair, ord, self.dtype))
        return merge_over(local, self.axes) if self.axes else local

    def _as_they_are(self, leaves: Sequence[Array], ord: float, together: bool) -> Pair:
        """Return the scale and the sum of powers of leaves as they are; where that is not right, in range."""
        if ord == math.inf:  # nothing is added up that could overflow
            total = self._sums(leaves, ord, together)
            return jnp.ones_like(total), total
        ways = {name: bind(way, ord, together) for name, way in (("cpu", self._on_need), ("default", self._at_once))}
        return lax.platform_dependent(*leaves, **ways)  # type: ignore[no-any-return]  # what they return

    def _on_need(self, ord: float, together: bool, *leaves: Array) -> Pair:
        """Read the leaves once, and only if that was not right once more."""
        total = self._sums(leaves, ord, together)
        right, scale = self._judged(total, leaves)
        return lax.cond(  # type: ignore[no-any-return]  # what its branches return
            jnp.all(right),
            lambda: (jnp.ones_like(total), total),
            lambda: (scale, self._sums(leaves, ord, together, scale)),
        )

    def _at_once(self, ord: float, together: bool, *leaves: Array) -> Pair:
        """Read the leaves once, for three sums, two of which are brought into range, and choose one of the three."""

        @jax.custom_jvp
        def pair(*leaves: Array) -> Pair:
            far = _FAR[ns.is_double(self.dtype)]
            # Behind a barrier, for XLA would square what it knows, and that is out of range.
            units = lax.optimization_barrier((1 / far, far))  # type: ignore[no-untyped-call]  # JAX leaves it untyped
            total, low, high = (self._sums(leaves, ord, together, unit) for unit in (None, *units))
            right, scale = self._judged(total, leaves)
            return scale, jnp.where(right, total, jnp.where(scale > 1, high, low))

        @pair.defjvp
        def derivative(leaves: Sequence[Array], changes: Sequence[Array]) -> tuple[Pair, Pair]:
            scale, total = pair(*leaves)  # of the sum that was chosen, for that of another may be inf, and inf · 0 NaN
            unit = lax.stop_gradient(scale)
            change = jax.jvp(lambda *leaves: self._sums(leaves, ord, together, unit), tuple(leaves), tuple(changes))[1]
            return (scale, total), (jnp.zeros_like(scale), change)

        return pair(*leaves)

    def _judged(self, total: Array, leaves: Sequence[Array]) -> tuple[Array, Array]:
        """Return where sums of powers of leaves as they are are right, and what to divide the leaves by elsewhere."""
        double = ns.is_double(self.dtype)
        tiny, share = _LOSS[double]
        sizes = list(map(ns.size, leaves))
        counts = jnp.asarray(sizes if total.ndim else sum(sizes), dtype=self.dtype)
        enough = total >= counts * (tiny / share)
        right = jnp.isfinite(total) & enough
        scale = jnp.where(right, 1.0, jnp.where(enough, _FAR[double], 1 / _FAR[double]))
        return right, lax.stop_gradient(scale.astype(self.dtype))

    def _sums(self, leaves: Sequence[Array], ord: float, together: bool, scale: Array | float | None = None) -> Array:
        """Return the sum of powers of all leaves or of each, divided by a scale or one for each if one is given."""
        factors: list[Array | None] = [None] * len(leaves)
        if scale is not None:
            inverse = 1 / jnp.asarray(scale, dtype=self.dtype)  # of powers of two: nothing is rounded
            factors = [inverse[i] if inverse.ndim else inverse for i in range(len(leaves))]
        totals = [owned(self._total(x, ord, f), x, self.axes) for x, f in zip(leaves, factors, strict=True)]
        return _joined(totals, ord) if together else jnp.stack(totals)

    def _by_peaks(self, leaves: Sequence[Array], ord: float, together: bool) -> Pair:
        """Return the scale and the sum of powers of leaves that are divided by their largest elements first."""
        batch = super().partials(leaves, ord)
        totals = [owned(batch.total[i], x, self.axes) for i, x in enumerate(leaves)]
        if not together:
            return batch.scale, jnp.stack(totals)
        scale = jnp.max(batch.scale)
        terms = rescale(jnp, jnp.stack(totals), batch.scale / scale, ord)
        return scale, _joined([terms[i] for i in range(len(leaves))], ord)

    def _total(self, x: Array, ord: float, factor: Array | None) -> Array:
        if 0 in x.shape:
            return jnp.zeros((), dtype=self.dtype)
        parts = [jnp.real(x), jnp.imag(x)] if ns.is_complex(x.dtype) else [x]
        parts = [jnp.astype(part, self.dtype) for part in parts]
        if factor is not None:
            parts = [part * factor for part in parts]
        if ord == 2:
            return sum(reduce_powers(jnp, part, ord) for part in parts)
        return reduce_powers(jnp, magnitudes(jnp, parts), ord)

    def _wide(self, x: Array) -> Array:  # noqa: ARG002  # all leaves of a tree have one
        return self.dtype

    def _unit(self, parts: Sequence[Array], axes: Axes | None) -> Array:
        # A norm does not depend on what its parts were divided by: its derivative need not pass there.
        return lax.stop_gradient(super()._unit(parts, axes))


def _joined(totals: Sequence[Array], ord: float) -> Array:
    """Return the sum of the leaves' sums (the maximum for inf), in a tree: XLA would add scalars up one by one."""
    while len(totals) > 1:
        pairs = zip(totals[::2], totals[1::2], strict=False)
        rest = totals[len(totals) // 2 * 2 :]
        totals = [jnp.maximum(x, y) if ord == math.inf else x + y for x, y in pairs] + list(rest)
    return totals[0]


def _balanced(partial: NormPartial) -> NormPartial:
    """Return a partial whose scale is about its norm, so that merging it squares no ratio out of range.

    The scale is a power of two: no bit of the norm changes.
    """
    near = safe_scale(jnp, partial.scale * root(jnp, partial.total, partial.ord))
    exponent_bits = 11 if ns.is_double(near.dtype) else 8
    scale = lax.stop_gradient(lax.reduce_precision(near, exponent_bits, 0))
    ratio = jnp.where(partial.total == 0, 1.0, partial.scale / scale)  # whose power may be inf, and 0 · inf is NaN
    total = rescale(jnp, partial.total, ratio, partial.ord)
    return NormPartial(scale, total, partial.ord, partial.dtype)


def _within(x: Array, bound: Scalar) -> Scalar:
    """Return a bound that is finite in the leaf's dtype if it is finite."""
    if isinstance(bound, float):
        return bound
    most = min(ns.largest(x.dtype), ns.largest(bound.dtype))
    return jnp.where(jnp.isfinite(bound), jnp.clip(bound, -most, most), bound)
