"""Norms over named axes in ``shard_map`` and ``pmap``, where each device sees only its own part of the leaves."""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from gradclip._partial import NormPartial, merge_elements
from gradclip._powers import rescale
from gradclip._types import AnyArray

AxisName: TypeAlias = str | Sequence[str] | None
"""The name or names of the mesh axes that leaves are split over; None for leaves that are not split. An empty tuple:
each device's part is taken for itself."""


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
    """Return the partial norm of the leaves on all devices along ``axes``, merged by one all-reduce.

    Each device makes an array with one row for each device, writes its scale and total into its own row, and leaves
    the other rows zero. The sum of these arrays over the devices has the partial norms of all devices. An all-gather
    would return the same array, but JAX's types would not say that it is the same on every device.
    """
    pair = jnp.stack([partial.scale, partial.total])
    devices = axis_size(axes)
    here = jnp.arange(devices) == lax.axis_index(axes)
    slots = jnp.where(jnp.reshape(here, (devices, *[1] * pair.ndim)), pair, jnp.zeros_like(pair))
    every = lax.psum(slots, axes)
    return merge_elements(NormPartial(every[:, 0], every[:, 1], partial.ord, partial.dtype), axis=0)


def merge_units_over(partial: NormPartial, axes: tuple[str, ...]) -> NormPartial:
    """Return the partial norms of a leaf's units on all devices along ``axes``, merged by two all-reduces.

    `merge_over` would send the numbers of each unit as often as there are devices.
    """
    scale = vary(partial.scale, varying(partial.total))  # the maximum over all axes needs a value that varies over all
    scale = lax.pmax(lax.stop_gradient(scale), axes)
    total = lax.psum(rescale(jnp, partial.total, partial.scale / scale, partial.ord), axes)
    return NormPartial(scale, total, partial.ord, partial.dtype)


def axis_size(axes: tuple[str, ...]) -> int:
    """Return the number of devices along ``axes`` as an integer: it is known while the function is traced."""
    return int(lax.psum(1, axes)) if axes else 1


def parts_of(leaf: AnyArray, axes: tuple[str, ...]) -> int:
    """Return in how many parts of equal size a leaf is split over ``axes``: one along an axis on which it is copied."""
    copied = _copied_over(leaf, axes)
    return axis_size(tuple(axis for axis in axes if axis not in copied))


def owned(total: AnyArray, leaf: AnyArray, axes: tuple[str, ...]) -> AnyArray:
    """Return a leaf's sum of powers on one device of those that have a copy of the leaf, and 0 on the others.

    A leaf that does not vary over an axis is the same on every device along this axis. Its sum must be added once, so
    only the first device along the axis returns it. In ``pmap``, and with ``check_vma=False``, JAX does not know which
    leaves are copies; each device's leaf is then taken for a different part of the gradients.

    Parameters
    ----------
    total : array
        The leaf's sum of powers on this device.
    leaf : array
        The leaf. Its type tells over which axes it varies.
    axes : tuple of str
        The mesh axes over which sums are merged.
    """
    copied = _copied_over(leaf, axes)
    if not copied:
        return total
    return jnp.where(lax.axis_index(tuple(copied)) == 0, total, jnp.zeros_like(total))


def _copied_over(leaf: AnyArray, axes: tuple[str, ...]) -> list[str]:
    """Return those of ``axes`` along which JAX knows that a leaf is the same on all devices."""
    return [axis for axis in axes if axis in varying(lax.axis_index(axis)) and axis not in varying(leaf)]


def varying(x: object) -> frozenset[str]:
    """Return the mesh axes over which an array varies: those in its type in ``shard_map``, none elsewhere."""
    kind = jax.typeof(x) if isinstance(x, jax.Array) else None
    manual = getattr(kind, "manual_axis_type", None)
    found: frozenset[str] = getattr(kind, "vma", frozenset()) if manual is None else manual.varying
    return found


def is_local(x: AnyArray) -> bool:
    """Return whether it is known that each device has the whole traced array, so that no device needs others' elements.

    It is known if there is one device. It is also known inside ``shard_map`` over all axes of a mesh, where an array is
    the part of one device. Under ``jit`` it is not known, because the compiler may shard any array over devices.
    """
    if jax.device_count() == 1:
        return True
    mesh = getattr(getattr(jax.typeof(x), "sharding", None), "mesh", None)
    kinds = {str(kind) for kind in getattr(mesh, "axis_types", None) or ()}
    return kinds == {"Manual"}


def vary(x: AnyArray, axes: frozenset[str]) -> AnyArray:
    """Return the same array with ``axes`` added to the mesh axes over which its type says that it varies.

    In ``shard_map`` these axes are a part of an array's type. A value that a loop carries must keep its type.
    """
    more = tuple(sorted(axes - varying(x)))
    return lax.pcast(x, more, to="varying") if more else x
