"""Adapters: one module a framework, each a faster ``Ops`` for it and the way into its containers.

``import gradclip.backends.torch`` is how an adapter is chosen. Nothing here imports a framework by itself: the modules
are loaded when they are first named.
"""

from importlib import import_module
from typing import Any

ADAPTERS: tuple[str, ...] = ("cupy", "jax", "optax", "torch")
"""The adapters that this version ships, by module name."""


def __getattr__(name: str) -> Any:
    if name in ADAPTERS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no adapter {name!r}; it has {', '.join(ADAPTERS) or 'none yet'}")


def __dir__() -> list[str]:
    return sorted({*globals(), *ADAPTERS})
