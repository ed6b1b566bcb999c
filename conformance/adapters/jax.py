"""gradclip.backends.jax: the core's names on JAX's arrays."""

from collections.abc import Iterator
from typing import Any

from gradclip.conformance import frameworks
from gradclip.conformance.adapters import Offered
from gradclip.conformance.targets import Target, load


def targets(module: Any, name: str) -> Iterator[Target]:
    """Yield the adapter compiled and not, with and without float64."""
    return frameworks.KNOWN["jax.numpy"](load("jax.numpy"), Offered(module, name), name)
