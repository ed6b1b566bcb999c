"""AutoClip, against the percentile of a list and against the package of that name."""

import math

import numpy as np
import pytest

from gradclip.policies import AutoClip
from tests.policies.frameworks import assert_same, run_floats, with_floats
from tests.policies.recorded import norms, spoiled


def reference(values, percentile=10.0, window=10_000):
    """arXiv:2007.14469: the percentile of the norms so far, interpolated linearly."""
    seen, thresholds = [], []
    for n in values:
        seen += [n] if 0 < n < math.inf else []
        thresholds.append(float(np.percentile(seen[-window:], percentile)) if seen else math.inf)
    return thresholds


@with_floats
@pytest.mark.parametrize(("percentile", "window"), [(10.0, 500), (90.0, 20), (0.0, 30), (100.0, 30), (33.3, 1)])
def test_the_formula(percentile, window, run):
    policy = AutoClip(percentile, window)
    assert_same(run, policy, spoiled(), reference(spoiled(), percentile, window))


def test_the_default_window_is_bounded():
    policy = AutoClip()
    assert policy.init(0.0).norms.shape == (10_000,)
    assert_same(run_floats, policy, spoiled()[:40], reference(spoiled()[:40]))


@with_floats
def test_norms_near_the_largest_number_of_float32(run):
    values = [float(np.float32(x * 3e38 / max(norms()))) for x in norms()]
    assert_same(run, AutoClip(70, 50), values, reference(values, 70, 50))


def test_the_package_autoclip():
    """It takes the quantile before the norm of the step enters, so that its threshold is ours of the step before."""
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("autoclip.torch", reason="pip install autoclip")
    param = torch.nn.Parameter(torch.zeros(1))
    theirs = peer.QuantileClip([param], quantile=0.1, history_length=50)
    mine = run_floats(AutoClip(10, 50), norms())
    for before, n in zip([math.inf, *mine], norms(), strict=False):
        param.grad = torch.tensor([n])
        theirs.step()
        assert float(param.grad) == pytest.approx(n * min(1, before / (n + 1e-6)), rel=1e-6)


def test_the_package_autoclip_is_lost_after_one_nan():
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("autoclip.torch", reason="pip install autoclip")
    param = torch.nn.Parameter(torch.zeros(1))
    theirs = peer.QuantileClip([param], quantile=0.1)
    for n in [1.0, math.nan, 1.0]:
        param.grad = torch.tensor([n])
        theirs.step()
    assert param.grad.isnan().all()
    assert run_floats(AutoClip(), [1.0, math.nan, 1.0])[-1] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"percentile": 101}, "percentile=101, expected a finite number >= 0 and <= 100; pass percentile=10"),
        ({"window": 0}, "window=0, expected an integer >= 1"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        AutoClip(**arguments)
    with pytest.raises(TypeError, match=r"window=2\.5, expected an integer number of steps"):
        AutoClip(window=2.5)
