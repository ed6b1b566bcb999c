"""Runs a module of the suite on a target in a new process."""

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
    """Run ``gradclip.conformance.MODULE.main(target, *arguments)`` and return the finished process."""
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
    """Find the target and run the module on it; `run` starts this in the new process."""
    name, namespaces, modules, module, arguments = json.loads(given)
    target = choice.of_name(name, namespaces, modules)
    with target.active():
        import_module(f"{__package__}.{module}").main(target, *arguments)
