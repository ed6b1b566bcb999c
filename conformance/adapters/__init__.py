"""Adapters under test: by its name, what binds an adapter's functions to the suite.

A file ``conformance/adapters/NAME.py`` has a function ``targets(module, name)`` that yields `Target`s for the adapter
``….NAME``. Its ``api`` may be the adapter itself, if that has gradclip's names, or an object of functions with
gradclip's names and signatures that call the adapter.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import pytest

from conformance import frameworks
from conformance.targets import Target, load


class Offered:
    """An adapter's functions; tests of those that it does not offer are skipped, with that reason."""

    def __init__(self, functions: Any, name: str) -> None:
        self._functions = functions
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or hasattr(self._functions, name):
            return getattr(self._functions, name)
        pytest.skip(f"{self._name} does not offer {name}")


def targets_of(module: str, namespaces: Sequence[str] = ()) -> list[Target]:
    """Return the targets of an adapter: on the given namespaces, or as the file that binds it says.

    ``module`` is the adapter's name, as in ``gradclip.backends.torch``; ``torch.nn.utils:torch`` names the file too.
    """
    name, _, binding = module.partition(":")
    functions = load(name)
    if namespaces:
        offered = Offered(functions, name)
        return [t for n in namespaces for t in frameworks.targets_of(n, offered, f"{name}:{n}")]
    file = f"{__name__}.{binding or name.rpartition('.')[2]}"
    try:
        bound = importlib.import_module(file)
    except ModuleNotFoundError as e:
        if e.name != file:
            raise
        raise pytest.UsageError(
            f"--adapter {module}: there is no {file} that binds it to the suite; write one, or pass the namespace of "
            "its arrays as --namespace if it has gradclip's own names"
        ) from e
    return list(bound.targets(functions, name))
