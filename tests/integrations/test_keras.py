"""Keras: the runs of keras_runs.py in one process for each backend, because a process has one."""

import sys
from importlib.util import find_spec

import pytest

from tests.processes import run_one

if find_spec("keras") is None:  # imported here, it would ask for TensorFlow
    pytest.skip("Keras is not installed; `make integrations` installs it", allow_module_level=True)


def run(backend: str, *command: str) -> str:
    """Return the output of Python on a backend; fail with it if the process fails."""
    return run_one([sys.executable, *command], 1800, KERAS_BACKEND=backend)


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
