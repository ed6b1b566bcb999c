"""gradclip.backends.cupy: the core's names on CuPy's arrays."""

from collections.abc import Iterator
from typing import Any

from gradclip.conformance import frameworks
from gradclip.conformance.adapters import Offered
from gradclip.conformance.targets import Target, load


def targets(module: Any, name: str) -> Iterator[Target]:
    """Yield the adapter on the current GPU."""
    return frameworks.KNOWN["cupy"](load("cupy"), Offered(module, name), name)
