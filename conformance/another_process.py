"""Runs a module of the suite on a target of this run, in a process of its own."""

import json
import os
import subprocess
import sys
from importlib import import_module

import pytest

from gradclip.conformance import choice
from gradclip.conformance.targets import Target


def run(
    config: pytest.Config, target: Target, module: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Return what came of ``gradclip.conformance.MODULE.main(target, *arguments)``."""
    modules = config.getoption("adapter")
    namespaces = config.getoption("namespace") if modules else [target.name.partition("[")[0]]
    given = json.dumps([target.name, namespaces, modules, module, arguments])
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main(sys.argv[1])"
    return subprocess.run(
        [sys.executable, "-c", code, given],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def main(given: str) -> None:
    """Find the target and run the module on it: what `run` starts."""
    name, namespaces, modules, module, arguments = json.loads(given)
    target = choice.of_name(name, namespaces, modules)
    with target.active():
        import_module(f"{__package__}.{module}").main(target, *arguments)
