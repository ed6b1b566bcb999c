"""Clipper on the emulated GPU: the thresholds of the core."""

import numpy as np
import pytest

from gradclip import Clipper
from gradclip.backends import cupy as adapter
from gradclip.backends.cupy import _functions, _tree
from gradclip.policies import AdaGC, QuantileClip, SkipStep, ZClip
from tests.backends.cupy.emulated import EmulatedRuntime, NumpySource, needs_compiler
from tests.policies.recorded import recorded, spoiled

pytestmark = needs_compiler


@pytest.fixture(autouse=True)
def _emulated(gpu: EmulatedRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tree, "runtime", lambda: gpu)
    monkeypatch.setattr(_tree, "Source", NumpySource)


@pytest.mark.parametrize("policy", [ZClip(warmup_steps=9, max_norm=None), QuantileClip(), SkipStep(sigma=3, window=20)])
def test_thresholds_of_one_norm(policy):
    mine, core = adapter.Clipper(policy), Clipper(policy)
    for norm in spoiled():
        grads = {"w": np.float32([0.6 * norm, 0.8 * norm]), "b": None}
        there, here = grads["w"].copy(), grads["w"].copy()
        clipped, _ = core({"w": here})
        mine.clip_({"w": there})
        np.testing.assert_allclose(there, clipped["w"], rtol=1e-6)
        assert float(mine.max_norm) == pytest.approx(float(core.max_norm), rel=1e-6)
        assert bool(mine.skipped) == bool(core.skipped)


def test_thresholds_of_each_leaf():
    mine, core = adapter.Clipper(AdaGC(warmup_steps=9)), Clipper(AdaGC(warmup_steps=9))
    for row in recorded()[:60].tolist():
        grads = [np.full(4, norm / 2, np.float32) for norm in row]
        clipped, norm = mine(grads)
        expected, whole = core(grads)
        np.testing.assert_allclose(clipped, expected, rtol=1e-6)
        np.testing.assert_allclose([norm, *mine.max_norm], [whole, *core.max_norm], rtol=1e-6)


def test_it_is_bound_to_the_containers_of_the_adapter():
    assert adapter.Clipper._containers is _functions._bound
    assert adapter.Clipper.__module__ == "gradclip.backends.cupy"
