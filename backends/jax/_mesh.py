"""Norms over named axes in ``shard_map`` and ``pmap``, where each device sees only its own part of the leaves."""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from gradclip._partial import NormPartial, merge_elements
from gradclip._types import AnyArray

AxisName: TypeAlias = str | Sequence[str] | None
"""The name or names of the mesh axes that leaves are split over; None for leaves that are not split."""


def names(axis_name: object) -> tuple[str, ...]:
    """Return axis names as a tuple, empty for None.

    Raises
    ------
    TypeError
        If it is neither a name, nor a sequence of names, nor None.
    """
    if axis_name is None:
        return ()
    axes = (axis_name,) if isinstance(axis_name, str) else axis_name
    if not isinstance(axes, list | tuple) or not all(isinstance(axis, str) for axis in axes):
        raise TypeError(
            f"axis_name={axis_name!r}, expected the name of a mesh axis, a tuple of names or None; "
            'pass the name that shard_map or pmap gave the axis, such as axis_name="data"'
        )
    return tuple(axes)


def merge_over(partial: NormPartial, axes: tuple[str, ...]) -> NormPartial:
    """Return the partial norm of the parts on all devices along ``axes``, merged by one collective.

    Each device writes its scale and total into its own slot of an array of zeros, and an all-reduce adds the arrays:
    two numbers for each device. JAX knows that an all-reduce gives the same result on every device; it does not know
    that of an all-gather.
    """
    pair = jnp.stack([partial.scale, partial.total])
    devices = axis_size(axes)
    here = jnp.arange(devices) == lax.axis_index(axes)
    slots = jnp.where(jnp.reshape(here, (devices, *[1] * pair.ndim)), pair, jnp.zeros_like(pair))
    every = lax.psum(slots, axes)
    return merge_elements(NormPartial(every[:, 0], every[:, 1], partial.ord, partial.dtype), axis=0)


def axis_size(axes: tuple[str, ...]) -> int:
    """Return the number of devices along ``axes``, which is known under tracing."""
    return int(lax.psum(1, axes))


def owned(total: AnyArray, leaf: AnyArray, axes: tuple[str, ...]) -> AnyArray:
    """Return a leaf's total on the first device along the axes that it is copied over, and 0 on the others.

    A leaf that does not vary over an axis is the same on every device along it, and counts once. If JAX does not track
    this (``pmap``, ``check_vma=False``), each device's leaf counts as a separate part.
    """
    copied = [axis for axis in axes if axis in varying(lax.axis_index(axis)) and axis not in varying(leaf)]
    if not copied:
        return total
    return jnp.where(lax.axis_index(tuple(copied)) == 0, total, jnp.zeros_like(total))


def varying(x: object) -> frozenset[str]:
    """Return the mesh axes over which an array varies, as ``shard_map`` tracks it; none for other objects."""
    kind = jax.typeof(x) if isinstance(x, jax.Array) and hasattr(jax, "typeof") else None
    manual = getattr(kind, "manual_axis_type", None)
    found: frozenset[str] = getattr(kind, "vma", frozenset()) if manual is None else manual.varying
    return found


def is_local(x: AnyArray) -> bool:
    """Return whether all of a traced array is known to lie on each device: not so under ``jit`` on a mesh.

    It is where there is one device, and in ``shard_map`` and ``pmap`` over all axes, whose arrays are a device's parts.
    """
    if jax.device_count() == 1:
        return True
    mesh = getattr(getattr(jax.typeof(x), "sharding", None), "mesh", None) if hasattr(jax, "typeof") else None
    kinds = {str(kind) for kind in getattr(mesh, "axis_types", None) or ()}
    return kinds == {"Manual"}


def vary(x: AnyArray, axes: frozenset[str]) -> AnyArray:
    """Return an array whose type varies over these mesh axes and those that it varied over before.

    In ``shard_map`` the axes are a part of an array's type, and a value that a loop carries must keep its type.
    """
    more = tuple(sorted(axes - varying(x)))
    if not more:
        return x
    if hasattr(lax, "pcast"):
        return lax.pcast(x, more, to="varying")
    return lax.pvary(x, more)  # type: ignore[attr-defined]  # what it was called before JAX 0.9
