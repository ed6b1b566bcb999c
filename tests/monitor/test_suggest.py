"""``suggest``: histories whose right answer is known."""

import math

import numpy as np
import pytest

from gradclip.monitor import History, suggest

RANDOM = np.random.default_rng(0)
STATIONARY = np.exp(0.3 * RANDOM.standard_normal(2000))


def of(norms: np.ndarray) -> History:
    return History(np.arange(10, 10 + len(norms)), np.asarray(norms, float))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25])
def test_stationary_norms_are_clipped_as_often_as_asked(share):
    found = suggest(of(STATIONARY), share=share)
    assert found.max_norm == pytest.approx(np.quantile(STATIONARY, 1 - share), rel=1e-12)
    assert found.share == pytest.approx(share, abs=1e-3)
    assert found.steady_from == 10
    assert found.explodes_at is None


def test_the_warm_up_is_left_out():
    decay = 50 * np.exp(-np.arange(2000) / 60)
    found = suggest(of(STATIONARY + decay))
    assert 100 < found.steady_from < 700
    assert found.max_norm == pytest.approx(np.quantile(STATIONARY, 0.95), rel=0.12)
    assert "are left out" in found.reason


def test_rare_spikes_do_not_move_the_threshold():
    spiky = STATIONARY.copy()
    spiky[500::500] = 1e4
    found = suggest(of(spiky))
    assert found.max_norm == pytest.approx(np.quantile(STATIONARY, 0.95), rel=0.02)
    assert "3 steps are spikes" in found.reason


@pytest.mark.parametrize(("slope", "word"), [(0.65, "rise"), (-0.65, "fall")])
def test_a_drift_is_said_and_followed(slope, word):
    drifting = STATIONARY * np.exp(slope * np.linspace(0, 1, 2000))
    found = suggest(of(drifting))
    assert f"The norms {word} by a factor of" in found.reason
    assert "ZClip()" in found.reason
    assert found.max_norm == pytest.approx(np.quantile(drifting[-666:], 0.95), rel=1e-3)


@pytest.mark.parametrize("norms", [np.ones(500), 3.0 + 0.1 * RANDOM.random(500)])
def test_calm_norms_are_not_clipped(norms):
    found = suggest(of(norms))
    assert found.max_norm is None
    assert found.reason.startswith("Do not clip: nothing stands out.")


def test_an_explosion_to_nan():
    bad = STATIONARY.copy()
    bad[1500:] = math.nan
    found = suggest(of(bad))
    assert found.explodes_at == 1510
    assert found.reason.startswith("Your gradients explode before step 1510")
    assert found.max_norm == pytest.approx(np.quantile(STATIONARY[:1500], 0.95), rel=1e-6)


def test_an_explosion_without_nan():
    bad = STATIONARY * np.exp(np.maximum(0, np.arange(2000) - 1600) / 40)
    found = suggest(of(bad))
    assert 1610 < found.explodes_at < 1760
    assert found.reason.startswith("Your gradients explode before step")
    assert found.max_norm < 10


def test_an_early_explosion():
    bad = np.full(300, math.inf)
    bad[:60] = 1.0
    bad[20:60] = math.nan
    found = suggest(of(np.concatenate([bad[:20], np.full(200, math.nan), np.ones(60)])))
    assert found.max_norm is None
    bad = np.concatenate([np.ones(20), np.full(200, 1e30)])
    bad[50:] = math.inf
    found = suggest(of(bad))
    assert found.max_norm is None


@pytest.mark.parametrize(
    ("norms", "words"),
    [
        ([], "0 of 0 norms are finite"),
        ([1.0] * 49, "49 of 49 norms are finite and above 0, expected at least 50"),
        ([0.0] * 100, "All 100 norms are 0: no gradient reaches the parameters"),
        ([math.nan] * 100, "0 of 100 norms are finite"),
    ],
)
def test_too_few_norms_say_nothing(norms, words):
    found = suggest(of(np.array(norms)))
    assert found.max_norm is None
    assert words in found.reason


def test_nan_and_inf_in_single_steps_are_no_explosion():
    some = STATIONARY.copy()
    some[[100, 700, 1999]] = math.nan, math.inf, math.nan
    found = suggest(of(some))
    assert found.explodes_at is None
    assert found.max_norm == pytest.approx(np.quantile(STATIONARY, 0.95), rel=0.02)


def test_it_is_deterministic():
    assert suggest(of(STATIONARY)) == suggest(of(STATIONARY))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(ValueError, match="expected a number between 0 and 1"):
        suggest(of(STATIONARY), share=share)


def test_norms_of_real_training():
    """A small regression with a few bad batches: the threshold is above the usual norms and below the bad ones."""
    torch = pytest.importorskip("torch")
    from gradclip.backends.torch import attach
    from gradclip.monitor import NormMonitor

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    monitor = NormMonitor(attach(optimizer, max_norm=None))
    for step in range(400):
        x = torch.randn(32, 8)
        y = x[:, :1] + 0.1 * torch.randn(32, 1) + (50.0 if step % 97 == 96 else 0.0)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    norms = monitor.history().norm
    found = monitor.suggest()
    bad = norms[96::97]
    assert np.median(norms) < found.max_norm < bad.min()
    assert {spike.step for spike in monitor.summary().spikes} >= set(range(96, 400, 97))
