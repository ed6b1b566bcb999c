"""ZClip, against its formula and against the authors' package."""

import math

import numpy as np
import pytest

from gradclip.policies import ZClip
from tests.policies.frameworks import assert_same, run_floats, with_floats
from tests.policies.recorded import norms, spoiled


def reference(
    values, alpha=0.97, z_thresh=2.5, max_norm=1.0, warmup_steps=25, option="adaptive_scaling", factor=1.0, skip=False
):
    """arXiv:2504.02507 in Python's floats, with the variance of a list of norms in the warm-up."""
    limit = math.inf if max_norm is None else max_norm
    first, mean, var, thresholds = [], 0.0, 0.0, []
    for n in values:
        usable = 0 < n < math.inf
        if len(first) < warmup_steps:
            thresholds.append(limit)
            if usable:
                first.append(n)
                mean = math.fsum(first) / len(first)
                var = math.fsum((x - mean) ** 2 for x in first) / len(first)
            continue
        std = math.sqrt(var)
        z = (n - mean) / (std + 1e-6) if math.isfinite(n) else math.inf
        found = mean + z_thresh * std
        spike = (n > found or not math.isfinite(n)) if option == "percentile" else z > z_thresh
        if option != "percentile":
            found = mean if option == "mean" else factor * (mean + z_thresh * std / (z / z_thresh))
        thresholds.append(min(found, limit) if spike else limit)
        if usable and not (spike and skip):
            effective = found if spike else n
            mean = alpha * mean + (1 - alpha) * effective
            var = alpha * var + (1 - alpha) * (effective - mean) ** 2
    return thresholds


CASES = {
    "defaults": {},
    "no limit": {"max_norm": None},
    "mean": {"max_norm": None, "option": "mean", "z_thresh": 1.5},
    "percentile": {"max_norm": None, "option": "percentile", "alpha": 0.9},
    "one step of warm-up": {"max_norm": None, "warmup_steps": 1, "z_thresh": 3.0},
}


@with_floats
@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES.keys())
def test_the_formula(arguments, run):
    assert_same(run, ZClip(**arguments), spoiled(), reference(spoiled(), **arguments))


@with_floats
def test_the_other_arguments(run):
    policy = ZClip(max_norm=None, clip_factor=0.8, skip_update_on_spike=True)
    assert_same(run, policy, spoiled(), reference(spoiled(), max_norm=None, factor=0.8, skip=True))


def test_spikes_are_clipped_and_nothing_else():
    thresholds = run_floats(ZClip(max_norm=None), norms())
    clipped = [i for i, (n, t) in enumerate(zip(norms(), thresholds, strict=True)) if n > t]
    assert {37, 61, 62, 110} <= set(clipped)
    assert len(clipped) < 16


@with_floats
def test_norms_near_the_largest_number_of_float32(run):
    values = [float(np.float32(x * 3e38 / max(norms()))) for x in norms()]
    assert_same(run, ZClip(max_norm=None), values, reference(values, max_norm=None))


@pytest.mark.parametrize("mode", ["adaptive_scaling", "mean", "percentile"])
def test_the_authors_package(mode):
    torch = pytest.importorskip("torch")
    zclip = pytest.importorskip("zclip", reason="pip install zclip")
    layer = torch.nn.Linear(1, 1, bias=False)
    options = {"mode": "percentile"} if mode == "percentile" else {"clip_option": mode}
    theirs = zclip.ZClip(max_grad_norm=None, **options)
    mine, state = ZClip(max_norm=None, option=mode), None
    for n in norms():
        layer.weight.grad = torch.full((1, 1), n)
        assert theirs.step(layer) == n
        max_norm, state = mine.update(mine.init(0.0) if state is None else state, n)
        assert float(layer.weight.grad) == pytest.approx(min(n, max_norm), rel=2e-6)  # they divide by n + 1e-6
    assert (state.mean, state.std**2) == pytest.approx((theirs.mean, theirs.var), rel=1e-6)


def test_the_authors_package_never_clips_again_after_one_nan():
    torch = pytest.importorskip("torch")
    zclip = pytest.importorskip("zclip", reason="pip install zclip")
    layer, theirs, mine = torch.nn.Linear(1, 1, bias=False), zclip.ZClip(), ZClip()
    state = mine.init(0.0)
    for n in [*norms()[:30], math.nan, *norms()[30:]]:
        layer.weight.grad = torch.full((1, 1), n)
        theirs.step(layer)
        _, state = mine.update(state, n)
    assert math.isnan(theirs.mean)
    assert state.mean == pytest.approx(reference_mean(), rel=1e-9)


def reference_mean():
    policy = ZClip()
    state = policy.init(0.0)
    for n in norms():
        _, state = policy.update(state, n)
    return state.mean


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 1.0}, r"alpha=1.0, expected a finite number > 0 and < 1; pass alpha=0.97"),
        ({"z_thresh": 0}, r"z_thresh=0, expected a finite number > 0"),
        ({"max_norm": -1.0}, r"max_norm=-1.0, expected a finite number >= 0; pass None for no limit"),
        ({"eps": math.nan}, r"eps=nan, expected a finite number > 0"),
        ({"warmup_steps": 0}, r"warmup_steps=0, expected an integer >= 1"),
        ({"option": "median"}, r"option='median', expected one of 'adaptive_scaling', 'mean', 'percentile'"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ZClip(**arguments)
