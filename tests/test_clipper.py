"""Clipper: a policy in a plain loop, in any namespace, saved and resumed at any step."""

import copy
import json
import math
import pickle

import array_api_strict
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gradclip
from gradclip.monitor import NormMonitor
from gradclip.policies import AdaGC, AutoClip, EmaClip, Fixed, QuantileClip, Schedule, SkipStep, ZClip
from tests.policies.recorded import norms

NAMESPACES = {
    "numpy": np.asarray,
    "torch": torch.from_numpy,
    "jax": jnp.asarray,
    "array-api-strict": array_api_strict.asarray,
}
POLICIES = [
    Fixed(0.5),
    ZClip(warmup_steps=5, max_norm=None),
    AutoClip(window=20),
    QuantileClip(),
    EmaClip(1.2),
    AdaGC(warmup_steps=5),
    SkipStep(sigma=3, window=16),
]
in_each = pytest.mark.parametrize("convert", NAMESPACES.values(), ids=NAMESPACES.keys())
each = pytest.mark.parametrize("policy", POLICIES, ids=repr)

RNG = np.random.default_rng(1)
DIRECTIONS = [RNG.standard_normal((2, 3)).astype(np.float32), RNG.standard_normal(5).astype(np.float32)]
SIZES = [*norms()[:45], math.nan, 1.0, math.inf, 0.0, *norms()[100:115], 3e35]


def gradients(size, convert):
    with np.errstate(all="ignore"):
        first, second = (np.asarray(x * np.float32(size)) for x in DIRECTIONS)
    return {"a": [convert(first)], "b": (None, convert(second))}


def largest(x):
    return float(np.max(np.asarray(x, np.float64)))


def step(clipper, size, convert):
    """Return all that a step decides, and its clipped gradients, as floats."""
    clipped, norm = clipper(gradients(size, convert))
    decided = [norm, clipper.max_norm, clipper.coefficient, clipper.clipped, clipper.skipped]
    leaves = [np.asarray(x, np.float64).reshape(-1) for x in (clipped["a"][0], clipped["b"][1])]
    return np.concatenate([np.asarray([largest(x) for x in decided]), *leaves])


@each
@in_each
def test_every_namespace_decides_the_same(policy, convert):
    clipper, reference = (gradclip.Clipper(policy) for _ in range(2))
    for size in SIZES:
        expected = step(reference, size, lambda x: x.astype(np.float64))
        np.testing.assert_allclose(step(clipper, size, convert), expected, rtol=3e-6)


@each
@in_each
def test_a_run_that_is_resumed_goes_on_as_it_would_have(policy, convert):
    clipper = gradclip.Clipper(policy)
    for i, size in enumerate(SIZES[:50]):
        if i in {0, 1, 7, 30, 46}:
            saved = copy.deepcopy(clipper.state_dict())
            resumed = gradclip.Clipper(policy)
            resumed.load_state_dict(saved)
            assert pickle.loads(pickle.dumps(resumed.state_dict()))["policy"] == type(policy).__name__
            clone = pickle.loads(pickle.dumps(clipper))
            expected = step(clipper, size, convert)
            for other in (resumed, clone):
                np.testing.assert_array_equal(step(other, size, convert), expected)
            clipper = resumed
        else:
            step(clipper, size, convert)


@each
def test_a_state_of_a_host_is_json_and_goes_to_another_framework(policy):
    clipper = gradclip.Clipper(policy)
    for size in SIZES[:30]:
        step(clipper, size, np.asarray)
    saved = json.loads(json.dumps(clipper.state_dict()))
    there = gradclip.Clipper(policy)
    there.load_state_dict(saved)
    np.testing.assert_allclose(step(there, 4.0, jnp.asarray), step(clipper, 4.0, np.asarray), rtol=3e-6)
    back = gradclip.Clipper(policy)
    back.load_state_dict(there.state_dict())
    np.testing.assert_allclose(step(back, 0.5, np.asarray), step(clipper, 0.5, np.asarray), rtol=3e-6)


@each
def test_in_place_it_does_the_same(policy):
    pure, in_place = (gradclip.Clipper(policy) for _ in range(2))
    for size in SIZES:
        mine = gradients(size, np.asarray)
        expected, norm = pure(gradients(size, np.asarray))
        assert repr(in_place.clip_(mine)) == repr(norm)
        np.testing.assert_array_equal(mine["a"][0], expected["a"][0])
        np.testing.assert_array_equal(mine["b"][1], expected["b"][1])
        assert bool(pure.skipped) == bool(in_place.skipped)


def test_what_it_reports_is_what_it_did():
    clipper = gradclip.Clipper(2.0)
    clipped, norm = clipper([np.float32([6.0, 8.0])], scale=2.0)
    np.testing.assert_allclose(clipped[0], [1.2, 1.6], rtol=1e-6)
    assert (norm, clipper.norm, clipper.max_norm, clipper.clipped, clipper.skipped) == (5, 5, 2, True, False)
    assert clipper.coefficient == pytest.approx(0.2)  # of the gradients with the loss scale in them
    assert norm.dtype == np.float32
    assert repr(clipper) == "Clipper(Fixed(max_norm=2.0), ord=2.0, nonfinite='propagate', eps=0.0)"


def test_the_options():
    grads = [np.array([3.0, 4.0])]
    assert gradclip.Clipper(1.0, ord=math.inf)(grads)[1] == 4
    assert gradclip.Clipper(1.0, eps=5.0)(grads)[0][0].tolist() == pytest.approx([0.3, 0.4])
    clipper = gradclip.Clipper(1.0, nonfinite="zero")
    assert clipper([np.array([3.0, np.nan])])[0][0].tolist() == [0, 0]
    for arguments in ({"ord": 0}, {"eps": -1}, {"nonfinite": "ignore"}):
        with pytest.raises(ValueError, match="expected"):
            gradclip.Clipper(1.0, **arguments)
    with pytest.raises(TypeError, match=r"policy is the class ZClip, expected a policy; pass ZClip\(\)"):
        gradclip.Clipper(ZClip)


def test_an_error_leaves_gradients_and_state_as_they_were():
    clipper = gradclip.Clipper(Schedule(lambda step: 1.0 + step), nonfinite="error")
    bad = np.array([np.nan, 9.0])
    with pytest.raises(gradclip.NonFiniteError):
        clipper.clip_([bad])
    read_only = np.array([3.0, 4.0])
    read_only.flags.writeable = False
    with pytest.raises(TypeError, match="cannot be written"):
        clipper.clip_([read_only])
    assert bad[1] == 9
    assert clipper.state is None
    clipper.clip_([np.array([3.0, 4.0])])
    assert clipper.max_norm == 1


def test_a_step_that_is_skipped_keeps_its_gradients():
    clipper = gradclip.Clipper(SkipStep(1.0))
    for value, skipped in [(0.5, False), (4.0, True), (np.nan, True), (np.inf, True), (0.7, False)]:
        grads = np.array([value, 0.0])
        clipped, _ = clipper([grads], scale=1.0)
        assert clipped[0] is grads
        assert clipper.skipped is skipped
        assert not clipper.clipped


def test_a_loop_that_never_asks_whether_to_skip_is_told_so():
    clipper = gradclip.Clipper(SkipStep(1.0))
    clipper([np.ones(2)])
    with pytest.raises(RuntimeError, match="`skipped` was not read after the last step; write"):
        clipper([np.ones(2)])
    assert clipper.skipped
    clipper([np.ones(2)])


def test_thresholds_for_each_leaf_need_the_same_leaves():
    clipper = gradclip.Clipper(AdaGC())
    clipper({"a": np.ones(2), "b": np.ones(3)})
    assert clipper.max_norm.shape == (2,)
    assert clipper.clipped
    with pytest.raises(ValueError, match="there are 1 gradients, expected 2 as in the steps before, because AdaGC has"):
        clipper({"a": np.ones(2), "b": None})
    assert gradclip.Clipper(AdaGC())({})[1] == 0


def test_states_of_other_policies_are_refused():
    clipper = gradclip.Clipper(ZClip())
    with pytest.raises(ValueError, match="state_dict is of 'AutoClip', expected 'ZClip'; load it in a Clipper with"):
        clipper.load_state_dict(gradclip.Clipper(AutoClip()).state_dict())
    with pytest.raises(ValueError, match="state_dict is of None, expected 'ZClip'"):
        clipper.load_state_dict({})
    clipper.load_state_dict({"policy": "ZClip", "state": {"mean": 1.0}})
    with pytest.raises(
        ValueError, match=r"the saved state has the fields \['mean'\], expected \['count', 'mean', 'std'\]"
    ):
        clipper([np.ones(2)])
    short = gradclip.Clipper(AutoClip(window=3))
    short([np.ones(2)])
    longer = gradclip.Clipper(AutoClip(window=4))
    longer.load_state_dict(short.state_dict())
    with pytest.raises(ValueError, match=r"norms of the saved state has shape \(3,\), expected \(4,\)"):
        longer([np.ones(2)])


def test_nothing_is_known_before_the_first_step():
    clipper = gradclip.Clipper(ZClip())
    assert clipper.state is None
    with pytest.raises(RuntimeError, match=r"there was no step yet, expected one before its decision is read"):
        clipper.norm  # noqa: B018  # the access is what is tested


def test_a_policy_of_ones_own():
    class Half:
        skips = per_leaf = False

        def init(self, like):
            return Fixed(1.0).init(like)

        def update(self, state, norm):
            return norm / 2, state

    clipped, _ = gradclip.Clipper(Half())([np.array([3.0, 4.0])])
    assert clipped[0].tolist() == pytest.approx([1.5, 2.0])


def test_gradients_that_are_recorded_leave_no_graph_in_the_state():
    weight = torch.ones(2, requires_grad=True)
    clipper = gradclip.Clipper(ZClip())
    for _ in range(2):
        (grad,) = torch.autograd.grad((weight**3).sum(), weight, create_graph=True)
        clipped, _ = clipper([grad])
    assert clipped[0].requires_grad
    assert not any(getattr(value, "requires_grad", False) for value in clipper.state)


@pytest.mark.parametrize("asarray", NAMESPACES.values(), ids=NAMESPACES)
@pytest.mark.parametrize("policy", [AdaGC(warmup_steps=2), EmaClip(2.0)], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_gradient_with_nan_or_inf_makes_all_zero(asarray, policy, bad):
    """Also where each gradient has a threshold of its own."""
    clipper = gradclip.Clipper(policy, nonfinite="zero")
    for step in range(4):
        grads = [np.asarray([3.0, 4.0]), np.asarray([1.0])]
        if step == 2:
            grads[0][1] = bad
        clipped, _ = clipper([asarray(g) for g in grads])
        assert [bool((np.asarray(g) == 0).all()) for g in clipped] == [step == 2] * 2
        assert float(np.asarray(clipper.coefficient).min()) == 0 or step != 2


def test_copies_and_pickles_are_not_watched(tmp_path):
    clipper = gradclip.Clipper(ZClip())
    monitor = NormMonitor(clipper, writers=tmp_path / "log.jsonl")
    grads = [np.array([3.0, 4.0])]
    clipper(grads)
    for duplicate in (copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))):
        other = duplicate(clipper)
        other(grads)
        assert (other.state.count, clipper.state.count) == (2, 1)
        assert other.observers == []
    assert len(clipper.observers) == 1
    monitor.fetch()
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize("make", NAMESPACES.values(), ids=NAMESPACES)
def test_thresholds_of_leaves_are_not_mixed_up(make):
    clipper = gradclip.Clipper(EmaClip(1.1))
    small, large = make(np.array([0.3, 0.4])), make(np.array([30.0, 40.0]))
    clipper({"a": small, "b": None})
    with pytest.raises(ValueError, match=r"at other positions than in the steps before \(grads\['b'\], …\)"):
        clipper({"a": None, "b": large})
    copy.deepcopy(clipper)({"b": None, "a": small})
    clipper({"b": None, "a": small})
    assert float(clipper.max_norm[0]) == pytest.approx(0.55)
