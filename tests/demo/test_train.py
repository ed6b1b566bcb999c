"""The runs: what a rule changes, how a run ends, and that a seed fixes all of it."""

import math

import pytest

from demo.backend import Sizes
from demo.clipping import ByGlobalNorm, ByValue, NoClipping
from demo.rnn import RNN
from demo.text import read_corpus
from demo.train import Recipe, Run, train

CORPUS = read_corpus(None, 1)
SIZES = Sizes(len(CORPUS.characters), hidden=24, rows=4, length=16)


def run(rule, steps=40, seed=0, rate=0.1):
    seen = []
    result = train(RNN(), CORPUS, SIZES, Recipe(steps, seed, rate), rule, lambda run: seen.append(run.survived))
    assert seen[-1] == result.survived
    return result


def test_a_run_that_lives_has_a_loss_and_a_norm_for_each_step():
    result = run(ByGlobalNorm(1.0))
    assert (result.survived, len(result.norms), result.fatal) == (40, 40, None)
    assert all(map(math.isfinite, result.losses + result.norms))
    assert result.sample.startswith("The ")
    assert len(result.sample) == len("The ") + 160


@pytest.mark.parametrize("rule", [NoClipping(), ByGlobalNorm(0.3), ByValue(0.01)])
def test_a_seed_fixes_the_run(rule):
    assert run(rule, seed=5) == run(rule, seed=5)
    assert run(rule, seed=5).losses != run(rule, seed=6).losses


@pytest.mark.parametrize("rule", [ByGlobalNorm(1e6), ByValue(1e6)])
def test_a_threshold_out_of_reach_changes_no_bit(rule):
    free, clipped = run(NoClipping()), run(rule)
    assert clipped.clipped == 0
    assert (clipped.losses, clipped.norms) == (free.losses, free.norms)


def test_steps_count_as_clipped_where_the_norm_exceeds():
    result = run(ByGlobalNorm(0.3))
    assert 0 < result.clipped < 40
    assert result.clipped == sum(norm > 0.3 for norm in result.norms)
    assert result.largest_norm == max(result.norms)


def test_steps_count_as_clipped_where_any_element_is_outside():
    assert run(ByValue(1e-6)).clipped == 40


def test_unclipped_training_explodes_by_itself_and_clipping_saves_it():
    sizes = Sizes(len(CORPUS.characters))
    recipe = Recipe(60, 0, 2.0)  # the demo's, shorter; where it dies, no threshold or noise has been set
    free, by_norm = (
        train(RNN(), CORPUS, sizes, recipe, rule, lambda _: None) for rule in (NoClipping(), ByGlobalNorm(1.0))
    )
    assert free.fatal is not None
    assert not math.isfinite(free.final_loss)
    assert 0 < free.survived < 60
    assert free.largest_norm > 100 * free.norms[0]
    assert by_norm.survived == 60
    assert by_norm.final_loss < math.log(sizes.vocabulary) - 0.5


def test_the_rate_rises_and_falls():
    recipe = Recipe(100, 0, 2.0)
    rates = [recipe.rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert 1.7 < max(rates) <= 2.0
    assert 0 < rates[-1] < 0.05
    assert Recipe(1, 0, 2.0).rate_at(0) == 2.0


def test_the_largest_norm_may_be_inf_but_not_nan():
    assert Run(NoClipping(), 3, norms=[1.0, math.inf, math.nan]).largest_norm == math.inf
    assert math.isnan(Run(NoClipping(), 3).largest_norm)
