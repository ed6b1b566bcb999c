"""Adapters under test: by its name, what binds an adapter's functions to the suite.

A file ``conformance/adapters/NAME.py`` has a function ``targets(module, name)`` that yields `Target`s for the adapter
``….NAME``. Its ``api`` may be the adapter itself, if that has gradclip's names, or an object of functions with
gradclip's names and signatures that call the adapter. Any module can be such a file: ``--adapter MODULE:FILE``.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import pytest

from gradclip.conformance import frameworks
from gradclip.conformance.targets import Target, load


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

    ``module`` is the adapter's name, as in ``gradclip.backends.torch``; ``torch.nn.utils:torch`` names the file too,
    and ``your.adapter:your.file`` one that is not of the suite.
    """
    name, _, binding = module.partition(":")
    functions = load(name)
    if namespaces:
        offered = Offered(functions, name)
        return [t for n in namespaces for t in frameworks.targets_of(n, offered, f"{name}:{n}")]
    return list(_file(module, binding or name.rpartition(".")[2]).targets(functions, name))


def _file(module: str, binding: str) -> Any:
    """Return the file that binds an adapter: one of this folder, or else any module."""
    for file in (f"{__name__}.{binding}", binding):
        try:
            found = importlib.import_module(file)
        except ModuleNotFoundError as e:
            if e.name is None or not f"{file}.".startswith(f"{e.name}."):
                raise
        else:
            if hasattr(found, "targets"):
                return found
    raise pytest.UsageError(
        f"--adapter {module}: nothing binds it to the suite; pass the namespace of its arrays as --namespace if it has "
        f"gradclip's own names, or --adapter {module.partition(':')[0]}:MODULE with a module that has `targets`"
    )
