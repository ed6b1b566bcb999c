"""The network: its gradient against finite differences, its weights and its samples."""

import math

import numpy as np
import pytest

import gradclip
from demo.backend import BACKENDS, Sizes, load_backend
from demo.checks import RefusedError
from demo.rnn import RNN
from demo.text import Batch

SIZES = Sizes(vocabulary=5, hidden=7, rows=3, length=6)


@pytest.fixture
def batch():
    text = np.random.default_rng(1).integers(SIZES.vocabulary, size=(SIZES.length + 1, SIZES.rows))
    return Batch(text[:-1], text[1:], first=True)


@pytest.mark.parametrize("name", ["input", "recurrent", "hidden_bias", "output", "output_bias"])
def test_the_gradient_is_that_of_finite_differences(name, batch):
    rnn, draw = RNN(np.float64), np.random.default_rng(2)
    params = rnn.init(0, SIZES)
    hidden = draw.random((SIZES.rows, SIZES.hidden))
    # Biases away from zero and larger weights, so that units are on and off and time carries a gradient.
    params = {key: array + 0.3 * draw.standard_normal(array.shape) for key, array in params.items()}
    _, grads, _ = rnn.loss_and_grads(params, hidden, batch)
    step, expected = 1e-6, np.empty_like(params[name])
    for index in np.ndindex(params[name].shape):
        value, losses = params[name][index], []
        for shift in (step, -step):
            params[name][index] = value + shift
            losses.append(rnn.loss_and_grads(params, hidden, batch)[0])
        params[name][index] = value
        expected[index] = (losses[0] - losses[1]) / (2 * step)
    assert np.linalg.norm(expected) > 1e-3
    np.testing.assert_allclose(grads[name], expected, rtol=1e-6, atol=1e-9)


def test_the_first_loss_is_about_that_of_a_guess(batch):
    rnn = RNN()
    loss, _, hidden = rnn.loss_and_grads(rnn.init(0, SIZES), rnn.hidden(SIZES), batch)
    assert loss == pytest.approx(math.log(SIZES.vocabulary), rel=0.05)
    assert hidden.shape == (SIZES.rows, SIZES.hidden)


def test_everything_stays_in_the_dtype(batch):
    rnn = RNN()
    params = rnn.init(0, SIZES)
    _, grads, hidden = rnn.loss_and_grads(params, rnn.hidden(SIZES), batch)
    params = rnn.sgd(params, grads, 0.1)
    assert {array.dtype for array in (*params.values(), *grads.values(), hidden)} == {np.dtype(np.float32)}
    assert {name: array.shape for name, array in grads.items()} == {n: array.shape for n, array in params.items()}
    assert sum(array.size for array in params.values()) == SIZES.weights


def test_a_seed_fixes_the_weights():
    first, again, other = (RNN().init(seed, SIZES) for seed in (3, 3, 4))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["recurrent"], other["recurrent"])


def test_clipping_is_gradclips(batch):
    rnn = RNN()
    _, grads, _ = rnn.loss_and_grads(rnn.init(0, SIZES), rnn.hidden(SIZES), batch)
    before = float(gradclip.global_norm(grads))
    clipped, norm = rnn.clip_by_global_norm(grads, before / 2)
    assert norm == pytest.approx(before, rel=1e-6)
    assert float(gradclip.global_norm(clipped)) == pytest.approx(before / 2, rel=1e-6)
    assert rnn.global_norm(rnn.clip_by_value(clipped, 1e-4), math.inf) == pytest.approx(1e-4)


def test_a_sample_begins_with_its_prompt_and_repeats_for_its_seed():
    rnn = RNN()
    params = rnn.init(0, SIZES)
    first = rnn.sample(params, [1, 2], 30, seed=0)
    assert first[:2] == [1, 2]
    assert len(first) == 32
    assert first == rnn.sample(params, [1, 2], 30, seed=0)
    assert first != rnn.sample(params, [1, 2], 30, seed=1)


def test_lost_weights_write_nothing():
    params = RNN().init(0, SIZES)
    params["output"][:] = np.nan
    assert RNN().sample(params, [1, 2], 30, seed=0) == [1, 2]


def test_backends_are_found_by_name():
    assert isinstance(load_backend("numpy"), RNN)


def test_a_missing_backend_is_refused_with_what_there_is():
    with pytest.raises(
        RefusedError, match=rf"--backend abacus is not a backend.*expected one of: {', '.join(BACKENDS)}"
    ):
        load_backend("abacus")
