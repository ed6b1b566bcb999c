"""``Ops`` for JAX: the norm of ordinary gradients by one read, by ``lax.cond`` a second way for all others.

Sums of powers run in float32 (float64 for float64 leaves) as they are. Whether one could have overflowed, or lost
something by underflow, shows in the sum; only then the leaves are read again and divided by their largest element
first. Under ``vmap`` a condition of its own for each example makes ``cond`` a ``select``, and both ways are computed:
right all the same, for three reads instead of one.
"""

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax

from gradclip import _namespace as ns
from gradclip._ops import ArrayOps, magnitudes
from gradclip._partial import NormPartial, merge_elements, reduce_powers, safe_scale
from gradclip._types import Array, Axes, Scalar
from gradclip.backends.jax._mesh import merge_over, owned

_LOSS = {  # what a power can lose by underflow, and which part of the sum may be lost; for float64, and for float32
    True: (2.0**-1022, 2.0**-58),
    False: (2.0**-126, 2.0**-28),
}


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
        totals = self._totals(leaves, ord)
        total = jnp.max(totals) if ord == math.inf else jnp.sum(totals)
        sizes = [sum(map(ns.size, leaves))]
        return self._partial(total, sizes, ord, lambda: merge_elements(self._scaled(leaves, ord)))

    def partials(self, leaves: Sequence[Array], ord: float) -> NormPartial:
        """Return one partial norm for each leaf."""
        totals = self._totals(leaves, ord)
        return self._partial(totals, list(map(ns.size, leaves)), ord, lambda: self._scaled(leaves, ord))

    def clamp(self, leaves: Sequence[Array], low: Scalar, high: Scalar) -> list[Array]:
        """Return each leaf with its elements moved into the bounds, which may be traced."""
        return [
            x for leaf in leaves for x in super(JaxOps, self).clamp([leaf], _within(leaf, low), _within(leaf, high))
        ]

    def _partial(self, total: Array, sizes: list[int], ord: float, again: Callable[[], NormPartial]) -> NormPartial:
        """Return the partial of sums as they are if they are right, else what ``again`` returns; over all devices."""
        if ord == math.inf:  # nothing was added up that could overflow
            scale = lax.stop_gradient(safe_scale(jnp, total))
            total = total / scale
        else:
            scale, total = lax.cond(
                jnp.all(self._right(total, sizes)),
                lambda: (jnp.ones_like(total), total),
                lambda: _pair(again()),
            )
        local = NormPartial(scale, total, ord, self.dtype)
        return merge_over(local, self.axes) if self.axes else local

    def _right(self, total: Array, sizes: list[int]) -> Array:
        """Whether sums of so many powers are free of overflow, and of underflow that matters."""
        tiny, share = _LOSS[ns.is_double(self.dtype)]
        least = jnp.reshape(jnp.asarray([n * (tiny / share) for n in sizes], dtype=self.dtype), total.shape)
        return jnp.isfinite(total) & (total >= least)

    def _totals(self, leaves: Sequence[Array], ord: float) -> Array:
        """Return the sum of powers of each leaf, as it is."""
        return jnp.stack([owned(self._total(x, ord), x, self.axes) for x in leaves])

    def _total(self, x: Array, ord: float) -> Array:
        if 0 in x.shape:
            return jnp.zeros((), dtype=self.dtype)
        parts = [jnp.real(x), jnp.imag(x)] if ns.is_complex(x.dtype) else [x]
        parts = [jnp.astype(part, self.dtype) for part in parts]
        if ord == 2:
            return sum(reduce_powers(jnp, part, ord) for part in parts)
        return reduce_powers(jnp, magnitudes(jnp, parts), ord)

    def _scaled(self, leaves: Sequence[Array], ord: float) -> NormPartial:
        """Return one partial for each leaf, which is divided by its largest element first."""
        batch = super().partials(leaves, ord)
        totals = [owned(batch.total[i], x, self.axes) for i, x in enumerate(leaves)]
        return NormPartial(batch.scale, jnp.stack(totals), ord, self.dtype)

    def _wide(self, x: Array) -> Array:  # noqa: ARG002  # all leaves of a tree have one
        return self.dtype

    def _unit(self, parts: Sequence[Array], axes: Axes | None) -> Array:
        # A norm does not depend on what its parts were divided by: its derivative need not pass there.
        return lax.stop_gradient(super()._unit(parts, axes))


def _pair(partial: NormPartial) -> tuple[Array, Array]:
    return partial.scale, partial.total


def _within(x: Array, bound: Scalar) -> Scalar:
    """Return a bound that is finite in the leaf's dtype if it is finite."""
    if isinstance(bound, float):
        return bound
    most = min(ns.largest(x.dtype), ns.largest(bound.dtype))
    return jnp.where(jnp.isfinite(bound), jnp.clip(bound, -most, most), bound)
