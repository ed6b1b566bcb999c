"""The examples run, and learn something in a few steps."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"


def load(name):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="example")


def test_the_transformer_learns_and_is_clipped():
    losses, norms, _ = load("torch_char_transformer")["train"](steps=20)
    assert losses[-1] < losses[0] - 0.5
    assert max(norms) > 1


def test_the_lstm_learns():
    errors, norms = load("torch_lstm")["train"](steps=60, length=10)
    assert sum(errors[-10:]) / 10 < 0.6 * errors[0]
    assert max(norms) > 0.5


def test_the_critic_brings_the_generator_to_the_ring():
    distances, samples = load("torch_wgan_critic")["train"](steps=40)
    assert max(distances[5:]) > 0
    assert samples.isfinite().all()


@pytest.mark.parametrize("policy", ["none", "Fixed(0.5)", "AutoClip()", "ZClip()", "AdaGC()", "SkipStep()"])
def test_the_experiment_runs_with_each_policy(policy, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)
    run = load("torch_policies")["train"](policy, seed=0, steps=12)
    assert run.losses[-1] < run.losses[0]
    assert len(run.norms) == len(run.changed) == 12


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("torch_*.py")), ids=lambda p: p.stem)
def test_examples_say_how_to_run_them(path):
    assert f"python examples/{path.name}" in path.read_text()
