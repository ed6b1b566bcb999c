"""`suggest`: histories whose right answer is known."""

import math
import re

import numpy as np
import pytest

from gradclip.monitor import History, NormMonitor, Suggestion, suggest

STATIONARY = np.exp(0.3 * np.random.default_rng(0).standard_normal(2000))
QUANTILE = math.exp(0.3 * 1.6448536269514722)
"""The 95th percentile of the distribution of `STATIONARY`."""


def of(norms: object, first: int = 10, every: int = 1) -> History:
    values = np.asarray(norms, np.float64)
    return History(first + every * np.arange(values.size), values)


def suggested(found: Suggestion) -> float:
    assert found.max_norm is not None
    return found.max_norm


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25])
def test_stationary_norms_are_clipped_as_often_as_asked(share):
    found = suggest(of(STATIONARY), share=share)
    assert found.max_norm == pytest.approx(np.quantile(STATIONARY, 1 - share), rel=1e-12)
    assert (found.verdict, found.steady_from, found.explodes_at) == ("clip", 10, None)
    assert found.share == pytest.approx(share, abs=1e-3)
    assert f"{100 * share:g} % of the steps" in found.reason


def correlated(seed: int, steps: int, correlation: float) -> np.ndarray:
    """Return lognormal norms of which each depends on the one before."""
    noise = np.random.default_rng(seed).standard_normal(steps)
    for i in range(1, steps):
        noise[i] = correlation * noise[i - 1] + math.sqrt(1 - correlation**2) * noise[i]
    return np.exp(0.3 * noise)


@pytest.mark.parametrize(("correlation", "error"), [(0.0, 0.04), (0.5, 0.06), (0.9, 0.2)])
@pytest.mark.parametrize("seed", range(40))
def test_neither_a_warm_up_nor_a_drift_is_invented(seed, correlation, error):
    found = suggest(of(correlated(seed, 2000, correlation)))
    assert suggested(found) == pytest.approx(QUANTILE, rel=error)
    assert found.steady_from == 10
    assert "over the run" not in found.reason


@pytest.mark.parametrize(
    "shape",
    [
        1 + 50 * np.exp(-np.arange(2000) / 60),
        np.where(np.arange(2000) < 100, 30.0, 1.0),
        np.where(np.arange(2000) < 100, 0.05, 1.0),
        1 + 4 * np.exp(-(((np.arange(2000) - 200) / 100) ** 2)),
    ],
    ids=["decay", "high", "low", "hump"],
)
def test_the_warm_up_is_left_out(shape):
    found = suggest(of(STATIONARY * shape))
    assert suggested(found) == pytest.approx(QUANTILE, rel=0.06)
    assert found.steady_from is not None
    assert 50 < found.steady_from < 800
    assert f"steps before step {found.steady_from:,} are left out" in found.reason
    assert "over the run" not in found.reason


def test_a_rise_that_may_be_an_explosion_is_said():
    found = suggest(of(np.where(np.arange(2000) < 150, 1e-3, 1.0) * STATIONARY))
    assert found.verdict == "clip"
    assert "may have exploded there" in found.reason


def test_rare_spikes_do_not_move_the_threshold():
    spiky = STATIONARY.copy()
    spiky[500::500] = 1e4
    found = suggest(of(spiky))
    assert found.max_norm == pytest.approx(np.quantile(STATIONARY, 0.95), rel=0.01)
    assert "3 steps are spikes" in found.reason


def test_more_spikes_than_the_share_are_all_clipped():
    usual = np.exp(0.1 * np.random.default_rng(1).standard_normal(2000))
    spiky = np.where(np.arange(2000) % 10 == 5, 10 * usual, usual)
    found = suggest(of(spiky))
    assert found.max_norm == np.delete(spiky, np.arange(5, 2000, 10)).max()
    assert found.share == 0.1
    assert "more than the 5 % asked for" in found.reason


@pytest.mark.parametrize(("change", "word"), [(0.8, "rise"), (2.0, "rise"), (-0.8, "fall"), (-2.0, "fall")])
def test_a_drift_is_said_and_the_end_of_the_run_decides(change, word):
    drifting = STATIONARY * np.exp(change * np.linspace(0, 1, 2000))
    found = suggest(of(drifting))
    assert found.max_norm == np.quantile(drifting[-666:], 0.95)
    said = re.search(f"The norms {word} by a factor of ([\\d.]+) over the run", found.reason)
    assert said is not None
    assert float(said[1]) == pytest.approx(math.exp(abs(change)), rel=0.1)
    assert "ZClip or AutoClip" in found.reason
    assert found.steady_from == 10


@pytest.mark.parametrize("norms", [np.ones(500), 3 + 0.1 * STATIONARY, np.full(40, 1e-30)])
def test_calm_norms_are_not_clipped(norms):
    found = suggest(of(norms))
    assert (found.max_norm, found.verdict, found.share) == (None, "do not clip", None)
    assert found.reason.startswith("Do not clip: ")
    assert str(found) == found.reason


def test_an_explosion_to_nan():
    bad = STATIONARY.copy()
    bad[1500:] = math.nan
    found = suggest(of(bad))
    assert (found.verdict, found.explodes_at) == ("exploding", 1510)
    assert found.reason.startswith("Your gradients explode before step 1,511")
    assert found.max_norm == np.quantile(STATIONARY[:1500], 0.95)


def test_an_explosion_without_nan_in_a_log_of_every_tenth_step():
    bad = STATIONARY * np.exp(np.maximum(0, np.arange(2000) - 1600) / 20)
    found = suggest(of(bad, first=0, every=10))
    assert found.explodes_at is not None
    assert 16_000 < found.explodes_at < 17_000
    assert found.reason.startswith("Your gradients explode before step 16,")
    assert suggested(found) == pytest.approx(QUANTILE, rel=0.06)


def test_an_explosion_before_anything_is_usual():
    found = suggest(of(np.concatenate([np.ones(20), np.full(200, math.nan)])))
    assert (found.max_norm, found.verdict, found.explodes_at) == (None, "exploding", 30)
    assert "too few steps before it" in found.reason


def test_a_warm_up_before_an_explosion():
    bad = STATIONARY * (1 + 50 * np.exp(-np.arange(2000) / 40))
    bad[1800:] = math.inf
    found = suggest(of(bad))
    assert found.verdict == "exploding"
    assert suggested(found) == pytest.approx(QUANTILE, rel=0.06)
    assert "are left out" in found.reason


@pytest.mark.parametrize(
    ("norms", "words"),
    [
        ([], "0 of 0 norms are finite"),
        ([1.0] * 29, "29 of 29 norms are finite and above 0, and 30 are needed"),
        ([1.0, math.nan] * 20, "20 of 40 norms are finite"),
        ([0.0] * 100, "All 100 norms are 0: no gradient reaches the parameters"),
    ],
)
def test_too_few_norms_say_nothing(norms, words):
    found = suggest(of(norms))
    assert (found.max_norm, found.verdict) == (None, "unknown")
    assert words in found.reason


def test_nan_and_inf_in_single_steps_are_no_explosion():
    some = STATIONARY.copy()
    some[[100, 700, 1999]] = math.nan, math.inf, math.nan
    some[[50, 60]] = 0.0
    found = suggest(of(some))
    assert found.explodes_at is None
    assert found.max_norm == np.quantile(some[np.isfinite(some) & (some > 0)], 0.95)
    assert "3 norms are NaN or inf" in found.reason


def test_norms_that_were_recorded_after_clipping():
    found = suggest(of(np.minimum(STATIONARY, 1.2)))
    assert (found.max_norm, found.verdict) == (None, "unknown")
    assert "they look like norms after clipping" in found.reason


def test_the_answer_is_scale_covariant_and_the_same_each_time():
    """Also far outside of the range of float32."""
    for history in (STATIONARY, STATIONARY * (1 + 50 * np.exp(-np.arange(2000) / 60))):
        first, again = suggest(of(history)), suggest(of(history))
        assert first == again
        for scale in (2.0**-700, 2.0**700):
            scaled = suggest(of(history * scale))
            assert suggested(scaled) == pytest.approx(suggested(first) * scale, rel=1e-12)
            assert (scaled.steady_from, scaled.share) == (first.steady_from, first.share)


def test_its_words_have_the_threshold():
    found = suggest(of(STATIONARY))
    assert str(found) == f"max_norm = {found.max_norm:.3g}: {found.reason}"


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(ValueError, match="expected a number between 0 and 1"):
        suggest(of(STATIONARY), share=share)


def test_norms_of_a_real_run_with_bad_batches():
    """The threshold is above nearly all usual norms of the end, and below every bad one."""
    torch = pytest.importorskip("torch")
    from gradclip.backends.torch import attach

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    monitor = NormMonitor(attach(optimizer), parameters=model)
    bad = range(96, 500, 97)
    for step in range(500):
        x = torch.randn(32, 8)
        y = x[:, :1] * x[:, 1:2] + (30.0 if step in bad else 0.0)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    history, found = monitor.history(), monitor.suggest()
    usual = np.delete(history.norm, bad)[-200:]
    assert found.verdict == "clip"
    assert np.median(usual) < suggested(found) < history.norm[bad].min()
    assert np.mean(usual > suggested(found)) < 0.1
    spikes = {spike.step: spike for spike in monitor.summary().spikes}
    assert set(spikes) >= set(bad)
    assert all(sum(spikes[step].parameters.values()) > 0.9 for step in bad)
    whole = np.sqrt(sum(norms**2 for norms in history.parameters.values()))
    np.testing.assert_allclose(whole, history.norm, rtol=1e-6)


def test_norms_of_a_real_run_that_explodes():
    """Without Adam's normalisation and with a learning rate far too high, a regression diverges."""
    torch = pytest.importorskip("torch")
    from gradclip.backends.torch import attach

    torch.manual_seed(0)
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    monitor = NormMonitor(attach(optimizer))
    for step in range(400):
        if step == 250:
            optimizer.param_groups[0]["lr"] = 1.5
        x = torch.randn(32, 8)
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    found = monitor.suggest()
    assert found.verdict == "exploding"
    assert found.explodes_at is not None
    assert 250 < found.explodes_at < 270
