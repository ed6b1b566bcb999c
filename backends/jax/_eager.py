"""Calls outside of ``jit``: compiled once for each structure of pytree, so that they are as fast as jitted calls."""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp


class Compiled:
    """A function of a pytree of arrays, compiled once for each structure, shapes and dtypes.

    If it is called under a transformation, it is traced as a part of the caller.

    Parameters
    ----------
    fn : callable
        Takes the pytree, then numbers, then static keyword arguments.
    static : tuple of str
        The names of the keyword arguments. Another value of one compiles again.
    """

    def __init__(self, fn: Callable[..., Any], static: tuple[str, ...]) -> None:
        # Inlined, so that XLA sees no function call in a step that clips.
        self._plain = jax.jit(fn, static_argnames=static, inline=True)
        self._donating = jax.jit(fn, static_argnames=static, donate_argnums=0)

    def __call__(self, arrays: Any, *numbers: Any, donate: bool = False, **static: Any) -> Any:
        """Call the function. With ``donate``, results may take over the memory of ``arrays``, which are deleted."""
        if donate and not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((arrays, numbers))):
            return self._donating(_apart(arrays, numbers), *numbers, **static)
        return self._plain(arrays, *numbers, **static)


def compiled(*static: str) -> Callable[[Callable[..., Any]], Compiled]:
    """Decorate a function of a pytree and numbers with `Compiled`; ``static`` names its keyword arguments."""
    return lambda fn: Compiled(fn, static)


def _apart(arrays: Any, others: Any) -> Any:
    """Return a pytree of arrays that share no memory with each other or with ``others``; those that do are copied.

    JAX refuses to donate the same memory twice. A tied leaf is two leaves, and the copy is donated for the second.
    """
    taken = {address for x in jax.tree.leaves(others) for address in _addresses(x)}

    def own(x: Any) -> Any:
        here = _addresses(x)
        if not taken.isdisjoint(here):
            return jnp.copy(x)
        taken.update(here)
        return x

    return jax.tree.map(own, arrays)


def _addresses(x: Any) -> set[int]:
    """Return the address of an array on each device of this process, without waiting for its values."""
    shards = x.addressable_shards if hasattr(x, "unsafe_buffer_pointer") else ()
    return {shard.data.unsafe_buffer_pointer() for shard in shards}
