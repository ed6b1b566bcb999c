"""Keras: the runs of keras_runs.py in one process for each backend, because a process has one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras", reason="Keras is not installed; `make integrations` installs it")

ROOT = Path(__file__).parents[2]


def run(backend: str, *command: str) -> str:
    """Return the output of Python on a backend; fail with it if the process fails."""
    env = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_real_runs(backend):
    out = run(backend, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/integrations/keras_runs.py")
    print(out)


def test_a_backend_without_operations_is_told_what_to_use():
    code = (
        "import keras\n"
        "from gradclip.backends.keras import clipped\n"
        "try: clipped(keras.optimizers.Adam)\n"
        "except RuntimeError as error: print(error)\n"
    )
    assert "pass global_clipnorm= to Keras's own optimizer" in run("numpy", "-c", code)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_the_page_in_docs_and_the_example_of_the_function(backend):
    run(backend, "-m", "doctest", "docs/integrations/keras.md")
    code = (
        "import doctest, gradclip.backends.keras._clipped as m\n"
        "failed, attempted = doctest.testmod(m)\n"
        "assert attempted and not failed"
    )
    if backend == "torch":  # the example says so
        run(backend, "-c", code)
