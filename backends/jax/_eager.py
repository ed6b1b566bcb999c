"""Calls outside of ``jit``: compiled once for each structure of pytree and kept, to cost what jitted ones do."""

from collections.abc import Callable
from typing import Any

import jax


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
        return (self._donating if donate else self._plain)(arrays, *numbers, **static)


def compiled(*static: str) -> Callable[[Callable[..., Any]], Compiled]:
    """Decorate a function of a pytree and numbers with `Compiled`; ``static`` names its keyword arguments."""
    return lambda fn: Compiled(fn, static)
