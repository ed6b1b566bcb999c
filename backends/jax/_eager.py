"""Calls outside of ``jit``: compiled once for each structure of pytree and kept, to cost what jitted ones do."""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp


class Compiled:
    """A function of a pytree of arrays, compiled on its first call with each structure, shapes and dtypes.

    Called under a transformation it becomes a part of what is being traced.

    Parameters
    ----------
    fn : callable
        Takes the pytree first, then numbers; keyword arguments are compiled in.
    static : tuple of str
        The names of the keyword arguments.
    """

    def __init__(self, fn: Callable[..., Any], static: tuple[str, ...]) -> None:
        # Inlined, so that a step that clips compiles to what it would be without a function call in it.
        self._plain = jax.jit(fn, static_argnames=static, inline=True)
        self._donating = jax.jit(fn, static_argnames=static, donate_argnums=0)

    def __call__(self, arrays: Any, *numbers: Any, donate: bool = False, **static: Any) -> Any:
        """Call the function; with ``donate``, its results may take the memory of ``arrays``, which are gone then."""
        if donate and not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((arrays, numbers))):
            return self._donating(_apart(arrays, numbers), *numbers, **static)
        return self._plain(arrays, *numbers, **static)


def compiled(*static: str) -> Callable[[Callable[..., Any]], Compiled]:
    """Decorate a function of a pytree and numbers with `Compiled`; ``static`` names its keyword arguments."""
    return lambda fn: Compiled(fn, static)


def _apart(arrays: Any, others: Any) -> Any:
    """Return a pytree of arrays that share no memory with each other or with ``others``: copies of those that do.

    What is donated must be there once. A tied leaf is two leaves, so that its copy becomes the memory of a result.
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
    """Return where the memory of an array begins on each of this process's devices; nothing is waited for."""
    shards = x.addressable_shards if hasattr(x, "unsafe_buffer_pointer") else ()
    return {shard.data.unsafe_buffer_pointer() for shard in shards}
