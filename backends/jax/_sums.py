"""Sums of powers of leaves, in few operations: each of them is traced and compiled, for each of thousands of leaves.

Each function here is traced once for all reads of a kind: of the leaves as they are, and brought into range.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp

from gradclip import _namespace as ns
from gradclip._array_ops import magnitudes
from gradclip._types import Array
from gradclip.backends.jax._mesh import owned, varying

_ADD_LEAVES_BELOW_NUMEL = 1 << 14
"""Smaller leaves of one shape are added up element by element before their sum is taken.

XLA writes the sum of each group to memory when it compiles for a CPU: 64 KiB for the largest.
"""

_GROUP_LEAVES = 4
"""Leaves whose powers are added up element by element. XLA took for the norm of 100 leaves of 64 elements, on a CPU,
0.40 s of one core for groups of 1, 0.21 s of 4, 0.30 s of 8, 0.27 s of 16 and 0.45 s of 64: a loop that reads many
arrays compiles slowly."""

_ADD_NUMBERS = 16
"""Numbers that are added up one after the other: rounding grows with this, not with the number of leaves."""


@partial(jax.jit, static_argnames=("ord", "dtype", "axes"))
def total_of(leaves: Sequence[Array], unit: Array | None, *, ord: float, dtype: str, axes: tuple[str, ...]) -> Array:
    """Return the sum of the powers of all leaves times ``unit``, 0-d; the largest for inf.

    Parameters
    ----------
    leaves : sequence of arrays
        At least one.
    unit : array or None
        0-d, of ``dtype``: a power of two, so that nothing is rounded. None for leaves as they are: a product makes the
        read of large leaves on a CPU 1.4 times as slow.
    ord : float
        1, 2 or inf.
    dtype : str
        The dtype that sums are kept in.
    axes : tuple of str
        The mesh axes that the leaves are split over, which says on which device a copied leaf counts.
    """
    totals = [
        owned(_total(_added([_powers(x, unit, ord, dtype) for x in some], ord), ord), some[0], axes)
        for some in _groups(leaves)
    ]
    return _joined(totals, ord)


@partial(jax.jit, static_argnames=("ord", "dtype", "axes"))
def totals_of(leaves: Sequence[Array], units: Array | None, *, ord: float, dtype: str, axes: tuple[str, ...]) -> Array:
    """Return the sum of the powers of each leaf times its own unit, 1-D; the largest for inf."""
    each = [_total(_powers(x, None if units is None else units[i], ord, dtype), ord) for i, x in enumerate(leaves)]
    return jnp.stack([owned(total, x, axes) for total, x in zip(each, leaves, strict=True)])


def _groups(leaves: Sequence[Array]) -> Iterator[Sequence[Array]]:
    """Yield the leaves in groups that are added up element by element.

    Where a program may run on several devices each leaf is its own group: leaves that are sharded differently would
    have to be gathered to be added up, and under ``jit`` nobody knows yet how they will be sharded.
    """
    alike: dict[object, list[Array]] = {}
    for i, x in enumerate(leaves):
        small = ns.size(x) < _ADD_LEAVES_BELOW_NUMEL and jax.device_count() == 1
        alike.setdefault((x.shape, varying(x)) if small else i, []).append(x)
    for same in alike.values():
        yield from (same[i : i + _GROUP_LEAVES] for i in range(0, len(same), _GROUP_LEAVES))


def _powers(x: Array, unit: Array | None, ord: float, dtype: str) -> Array:
    """Return the power of each element times ``unit``."""
    parts = [jnp.real(x), jnp.imag(x)] if ns.is_complex(x.dtype) else [x]
    parts = [part if part.dtype == dtype else jnp.astype(part, dtype) for part in parts]
    if unit is not None:
        parts = [part * unit for part in parts]
    return reduce(jnp.add, [part * part for part in parts]) if ord == 2 else magnitudes(jnp, parts)


def _added(powers: Sequence[Array], ord: float) -> Array:
    return reduce(jnp.maximum if ord == math.inf else jnp.add, powers)


def _total(powers: Array, ord: float) -> Array:
    return jnp.max(powers, initial=0) if ord == math.inf else jnp.sum(powers)


def _joined(totals: Sequence[Array], ord: float) -> Array:
    """Return the sum of numbers (the maximum for inf), added in a tree: XLA would add scalars up one by one."""
    if len(totals) == 1:
        return totals[0]
    rest = jnp.stack(totals)
    while rest.size > 1:
        width = min(rest.size, _ADD_NUMBERS)
        rest = jnp.pad(rest, (0, -rest.size % width)).reshape(-1, width)
        rest = jnp.max(rest, axis=1) if ord == math.inf else jnp.sum(rest, axis=1)
    return rest[0]
