"""The examples in examples/ run, and train; those in docs/ print what they say."""

import doctest
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"


def run(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main()


@pytest.mark.parametrize("name", ["jax_flax_nnx", "jax_equinox", "jax_haiku_style"])
def test_the_example_trains(name):
    first, last, *what = run(name)
    assert last < first / 3
    if name == "jax_flax_nnx":
        assert what[0].step == 60
        assert what[0].clipped > 0


def test_the_page_in_docs():
    failed, attempted = doctest.testfile(str(ROOT / "docs" / "jax.md"), module_relative=False)
    assert attempted > 0
    assert failed == 0
