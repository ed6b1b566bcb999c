"""Adapters: one module for each framework, with a faster ``Ops`` and the conversion of its containers to leaves.

``import gradclip.backends.torch`` chooses an adapter. ``import gradclip.backends`` imports no framework: an adapter is
imported when its name is first used. The modules for trainers clip in the training loops of others.
"""

from importlib import import_module
from typing import Any

ADAPTERS: tuple[str, ...] = ("cupy", "jax", "optax", "torch")
"""The names of the adapters in this version."""

TRAINERS: tuple[str, ...] = ("accelerate", "ignite", "keras", "lightning", "sb3", "skorch", "transformers")
"""The names of the modules for trainers."""


def __getattr__(name: str) -> Any:
    if name in ADAPTERS + TRAINERS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no adapter {name!r}; it has {', '.join(ADAPTERS + TRAINERS)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *ADAPTERS, *TRAINERS})
