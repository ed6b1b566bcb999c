"""The examples in examples/ run, and train; those in docs/ print what they say."""

import doctest
import importlib.util
from pathlib import Path

import pytest

from gradclip.monitor import read

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"


def run(name, *writers):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(*writers)


@pytest.mark.parametrize("name", ["jax_flax_nnx", "jax_equinox", "jax_haiku_style"])
def test_the_example_trains_and_logs_each_step(name, tmp_path):
    if name == "jax_flax_nnx" and not hasattr(pytest.importorskip("flax.nnx"), "as_pure"):
        pytest.skip("the example needs a newer Flax, with nnx.as_pure")
    first, last, norms = run(name, str(tmp_path / "norms.jsonl"))
    assert last < first / 3
    assert norms.steps == 60
    assert 0 < norms.clipped < 1
    history = read(tmp_path / "norms.jsonl")
    assert len(history.norm) == len(history.loss) == 60
    assert sum(history.clipped) == round(60 * norms.clipped)
    assert history.loss[0] == pytest.approx(first)


def test_the_page_in_docs():
    failed, attempted = doctest.testfile(str(ROOT / "docs" / "jax.md"), module_relative=False)
    assert attempted > 0
    assert failed == 0
