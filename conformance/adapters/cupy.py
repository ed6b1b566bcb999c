"""gradclip.backends.cupy: the core's names on CuPy's arrays."""

from collections.abc import Iterator
from typing import Any

from conformance import frameworks
from conformance.adapters import Offered
from conformance.targets import Target, load


def targets(module: Any, name: str) -> Iterator[Target]:
    """Yield the adapter on the current GPU."""
    return frameworks.KNOWN["cupy"](load("cupy"), Offered(module, name), name)
