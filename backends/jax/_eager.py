"""Compilation of public functions, so that a call outside of ``jit`` is about as fast as one inside."""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp


class Compiled:
    """A function of a pytree of arrays. It is compiled at the first call with a structure, shapes and dtypes.

    Inside of ``jit`` and other transformations, it becomes a part of the caller's program.

    Parameters
    ----------
    fn : callable
        The function. Its positional arguments are the pytree and any numbers; its keyword arguments are static.
    static : tuple of str
        The names of the static arguments: JAX compiles the function once for each of their values.
    """

    def __init__(self, fn: Callable[..., Any], static: tuple[str, ...]) -> None:
        # With inline=True, the caller's program has the operations themselves and not a call of a function.
        self._plain = jax.jit(fn, static_argnames=static, inline=True)
        self._donating = jax.jit(fn, static_argnames=static, donate_argnums=0)

    def __call__(self, arrays: Any, *numbers: Any, donate: bool = False, **static: Any) -> Any:
        """Call the function. With ``donate``, JAX may use the memory of ``arrays`` for the results and deletes them."""
        if donate and not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((arrays, numbers))):
            return self._donating(_apart(arrays, numbers), *numbers, **static)
        return self._plain(arrays, *numbers, **static)


def compiled(*static: str) -> Callable[[Callable[..., Any]], Compiled]:
    """Return a decorator that makes a `Compiled` of a function. ``static`` names its keyword arguments."""
    return lambda fn: Compiled(fn, static)


def _apart(arrays: Any, others: Any) -> Any:
    """Return the pytree with a copy in place of each array that shares memory with an earlier one or with ``others``.

    JAX refuses to donate the same memory twice, and memory that another argument uses. A tied leaf stands at two
    positions of the pytree: the leaf itself is donated for the first, and a copy of it for the second.
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
    """Return the addresses of an array's parts on this process's devices. The host does not wait for the values."""
    shards = x.addressable_shards if hasattr(x, "unsafe_buffer_pointer") else ()
    return {shard.data.unsafe_buffer_pointer() for shard in shards}
