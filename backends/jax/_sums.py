"""Sums of powers of leaves in few operations, because each operation is traced and compiled for each leaf.

The jitted functions are traced once for all reads of the same leaves: without a multiplier, and multiplied by one.
"""

import math
from collections.abc import Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax

from gradclip import _dtypes
from gradclip import _namespace as ns
from gradclip._array_ops import magnitudes
from gradclip._types import AnyArray
from gradclip.backends.jax._limits import ADD_NUMBERS, JOIN_BELOW_NUMEL, JOIN_LEAVES, JOIN_UP_TO_NUMEL
from gradclip.backends.jax._mesh import is_local, owned, varying


def joined(leaves: Sequence[AnyArray]) -> list[AnyArray]:
    """Return the same elements in fewer arrays: small leaves are laid end to end in vectors.

    Only leaves that are whole on each device are joined. Others may be sharded differently and would be gathered.
    """
    small: dict[object, list[AnyArray]] = {}
    large, room = [], JOIN_UP_TO_NUMEL
    for x in leaves:
        if ns.numel(x) < min(JOIN_BELOW_NUMEL, room) and is_local(x):
            small.setdefault((x.dtype, varying(x)), []).append(x)
            room -= ns.numel(x)
        else:
            large.append(x)
    vectors = [
        _end_to_end(alike[i : i + JOIN_LEAVES]) for alike in small.values() for i in range(0, len(alike), JOIN_LEAVES)
    ]
    return [*vectors, *large]


def _end_to_end(leaves: Sequence[AnyArray]) -> AnyArray:
    if len(leaves) == 1:
        return leaves[0]
    return lax.concatenate([x if x.ndim == 1 else lax.reshape(x, (ns.numel(x),)) for x in leaves], 0)


@partial(jax.jit, static_argnames=("ord", "dtype", "axes"))
def total_of(
    leaves: Sequence[AnyArray], multiplier: AnyArray | None, *, ord: float, dtype: str, axes: tuple[str, ...]
) -> AnyArray:
    """Return the sum of the powers of all leaves times ``multiplier``, 0-d; the largest for inf.

    Parameters
    ----------
    leaves : sequence of arrays
        At least one.
    multiplier : array or None
        0-d, of ``dtype``: a power of two, so that nothing is rounded. None: no multiplication, which would make the
        read of large leaves on a CPU 1.4 times as slow.
    ord : float
        1, 2 or inf.
    dtype : str
        The dtype of the sums.
    axes : tuple of str
        The mesh axes that the leaves are split over. They say on which device a copied leaf counts.
    """
    return _added_up([owned(_total(_powers(x, multiplier, ord, dtype), ord), x, axes) for x in leaves], ord)


@partial(jax.jit, static_argnames=("ord", "dtype", "axes"))
def totals_of(
    leaves: Sequence[AnyArray], multipliers: AnyArray | None, *, ord: float, dtype: str, axes: tuple[str, ...]
) -> AnyArray:
    """Return the sum of the powers of each leaf times its own multiplier, 1-D; the largest for inf."""
    each = [
        _total(_powers(x, None if multipliers is None else multipliers[i], ord, dtype), ord)
        for i, x in enumerate(leaves)
    ]
    return jnp.stack([owned(total, x, axes) for total, x in zip(each, leaves, strict=True)])


def _powers(x: AnyArray, multiplier: AnyArray | None, ord: float, dtype: str) -> AnyArray:
    """Return the power of each element times ``multiplier``."""
    parts = [jnp.real(x), jnp.imag(x)] if _dtypes.is_complex(x.dtype) else [x]
    parts = [part if part.dtype == dtype else jnp.astype(part, dtype) for part in parts]
    if multiplier is not None:
        parts = [part * multiplier for part in parts]
    return reduce(jnp.add, [part * part for part in parts]) if ord == 2 else magnitudes(jnp, parts)


def _total(powers: AnyArray, ord: float) -> AnyArray:
    return jnp.max(powers, initial=0) if ord == math.inf else jnp.sum(powers)


def _added_up(totals: Sequence[AnyArray], ord: float) -> AnyArray:
    """Return the sum of numbers (the maximum for inf), added in a tree: XLA would add scalars up one by one."""
    while len(totals) > 1:
        some = [totals[i : i + ADD_NUMBERS] for i in range(0, len(totals), ADD_NUMBERS)]
        totals = [_total(jnp.stack(numbers), ord) for numbers in some]
    return totals[0]
