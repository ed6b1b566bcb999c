"""Adapters under test: one file for each says how the suite calls the adapter.

A file ``conformance/adapters/NAME.py`` has a function ``targets(module, name)`` that yields `Target`s for the adapter
``….NAME``. The ``api`` of a target is the adapter itself, if it has gradclip's names, or an object of functions with
gradclip's names and signatures that call the adapter. Any module can be such a file: ``--adapter MODULE:FILE``.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import pytest

from gradclip.conformance import frameworks
from gradclip.conformance.targets import Target, load


class Offered:
    """The functions of an adapter. A test that uses one that the adapter lacks is skipped, with that reason."""

    def __init__(self, functions: Any, name: str) -> None:
        self._functions = functions
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or hasattr(self._functions, name):
            return getattr(self._functions, name)
        pytest.skip(f"{self._name} does not offer {name}")


def targets_of(module: str, namespaces: Sequence[str] = ()) -> list[Target]:
    """Return the targets of an adapter: on the given namespaces, or those of its file.

    ``module`` is the adapter's name, such as ``gradclip.backends.torch``. It may name the file, too:
    ``torch.nn.utils:torch`` names one of the suite, ``your.adapter:your.file`` any other module.
    """
    name, _, binding = module.partition(":")
    functions = load(name)
    if namespaces:
        offered = Offered(functions, name)
        return [t for n in namespaces for t in frameworks.targets_of(n, offered, f"{name}:{n}")]
    return list(_file(module, binding or name.rpartition(".")[2]).targets(functions, name))


def _file(module: str, binding: str) -> Any:
    """Return the file of an adapter: a module of this folder, or else any module."""
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
