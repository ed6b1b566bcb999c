"""What the callbacks for trainers share, with plain optimizers; tests/integrations/ has the trainers."""

import math
import pickle
from types import SimpleNamespace

import pytest
import torch

from gradclip.backends.torch import Clipper, attach
from gradclip.backends.torch._in_trainer import InTrainer, StepNumbers
from gradclip.monitor import NormMonitor
from gradclip.policies import AdaGC, SkipStep, ZClip


def optimizer(*norms, lr=0.0):
    """One with a param group of one gradient for each norm."""
    groups = [{"params": [torch.zeros(1, requires_grad=True)]} for _ in norms]
    made = torch.optim.SGD(groups, lr=lr)
    step(made, *norms, run=False)
    return made


def step(made, *norms, run=True):
    for group, norm in zip(made.param_groups, norms, strict=True):
        group["params"][0].grad = torch.tensor([float(norm)])
    if run:
        made.step()


def test_the_numbers_are_those_of_the_last_step_and_the_share_of_all():
    made, clip = optimizer(0.0), InTrainer(2.0)
    assert clip.begin([made])
    assert clip.read() == {}
    for norm in (1.0, 8.0, 1.0, 4.0):
        step(made, norm)
    expected = {"grad_norm": 4.0, "gradclip/max_norm": 2.0, "gradclip/coefficient": 0.5, "gradclip/clipped": 0.5}
    assert {name: float(value) for name, value in clip.read().items()} == expected
    assert clip.take() == expected
    assert clip.take() == {}
    step(made, 1.0)
    assert clip.take()["gradclip/clipped"] == 0


@pytest.mark.parametrize("policy", [2.0, AdaGC(warmup_steps=1)], ids=["groups", "gradients"])
def test_of_several_groups_or_gradients_one_number_is_shown(policy):
    made, clip = optimizer(3.0, 4.0), InTrainer(policy, per_group=policy == 2.0)
    clip.begin([made])
    made.step()
    numbers = clip.take()
    assert numbers["grad_norm"] == 5
    assert numbers["gradclip/clipped"] == 1
    assert numbers["gradclip/coefficient"] == pytest.approx(0.5 if policy == 2.0 else 0.2)


def test_skipped_steps_are_shown_only_by_policies_that_skip():
    made, clip = optimizer(0.0), InTrainer(SkipStep(threshold=2.0))
    clip.begin([made])
    for norm in (1.0, 3.0):
        step(made, norm)
    assert clip.take()["gradclip/skipped"] == 1


def test_several_optimizers_each_by_its_own_norm():
    both, clip = [optimizer(3.0), optimizer(8.0)], InTrainer(4.0)
    clip.begin(both)
    both[1].step()
    assert clip.take() == {
        "grad_norm/1": 8.0, "gradclip/max_norm/1": 4.0, "gradclip/coefficient/1": 0.5, "gradclip/clipped/1": 1.0,
    }  # fmt: skip
    both[0].step()
    assert clip.take()["gradclip/clipped/0"] == 0


def test_a_replaced_optimizer_goes_on_with_the_state_of_the_policy():
    policy = ZClip(warmup_steps=2, max_norm=100.0)
    one, other, clip, whole = optimizer(0.0), optimizer(0.0), InTrainer(policy), optimizer(0.0)
    reference = attach(whole, policy)
    clip.begin([one])
    assert not clip.begin([one])
    for norm in (1.0, 1.5, 1.2):
        step(one, norm)
        step(whole, norm)
    assert clip.begin([other])
    assert not reference.attached_to(one)
    step(one, 9.0)
    assert one.param_groups[0]["params"][0].grad == 9, "the optimizer before is no longer clipped"
    for norm in (9.0, 1.0, 7.0):
        step(other, norm)
        step(whole, norm)
        assert clip.clippings[0].threshold == reference.threshold


def test_states_are_plain_and_are_loaded_now_or_at_the_next_start():
    policy = ZClip(warmup_steps=1)
    made, clip = optimizer(0.0), InTrainer(policy)
    assert clip.state_dict() == {"clippings": []}
    clip.begin([made])
    for norm in (1.0, 2.0):
        step(made, norm)
    state = clip.state_dict()
    assert state["clippings"][0]["policies"]["all"]["count"] > 0
    for other in (InTrainer(policy), pickle.loads(pickle.dumps(clip))):
        other.load_state_dict(state)
        assert other.state_dict() == state
        again = optimizer(0.0)
        other.begin([again])
        assert other.state_dict() == state
    clip.load_state_dict(state)
    clip.end()
    assert clip.clippings == []
    assert clip.state_dict() == state
    with pytest.raises(ValueError, match="the saved state is of 1 optimizers, expected one for each of 2"):
        clip.begin([optimizer(0.0), optimizer(0.0)])
    with pytest.raises(TypeError, match="state_dict is 3, expected what state_dict"):
        clip.load_state_dict(3)


def test_arguments_are_checked_before_there_is_an_optimizer():
    with pytest.raises(ValueError, match="max_norm"):
        InTrainer(-1.0)
    with pytest.raises(ValueError, match="nonfinite"):
        InTrainer(1.0, nonfinite="ignore")
    with pytest.raises(TypeError, match="max_nrom"):
        InTrainer(max_nrom=1.0)


def test_a_monitor_records_each_step():
    monitor = NormMonitor()
    made, clip = optimizer(0.0), InTrainer(2.0, monitor=monitor)
    clip.begin([made])
    for norm in (1.0, 3.0):
        step(made, norm)
    assert monitor.history().norm.tolist() == [1, 3]
    assert monitor.last()["gradclip/clipped"] == 1


def test_numbers_of_a_clipper():
    seen, clipper = StepNumbers(), Clipper(2.0)
    clipper.clip_({"weight": torch.tensor([4.0])})
    seen.observe(clipper)
    assert {name: float(value) for name, value in seen.read().items()} == {
        "grad_norm": 4.0, "gradclip/max_norm": 2.0, "gradclip/coefficient": 0.5, "gradclip/clipped": 1.0,
    }  # fmt: skip


def test_without_gradients_the_norm_is_zero():
    made, clip = torch.optim.SGD([torch.zeros(1, requires_grad=True)]), InTrainer(AdaGC())
    clip.begin([made])
    made.step()
    assert clip.read()["grad_norm"] == 0
    assert math.isnan(clip.read()["gradclip/max_norm"]) or clip.read()["gradclip/max_norm"] >= 0


def place(name, **others):
    return SimpleNamespace(distributed_type=SimpleNamespace(value=name), **others)


def test_places_where_the_gradients_of_an_optimizer_are_not_the_whole():
    sharded = "runs on FSDP1, where each rank has a part of the gradients, expected group="
    for name in ("DEEPSPEED", "MEGATRON_LM"):
        with pytest.raises(ValueError, match=f"runs on {name}, which keeps gradients of its own"):
            InTrainer(1.0, group=object()).check_place(place(name))
    for version, error in ((1, sharded), (2, None)):
        where = place("FSDP", fsdp_plugin=SimpleNamespace(fsdp_version=version))
        if error:
            with pytest.raises(ValueError, match=error):
                InTrainer(1.0).check_place(where)
        else:
            InTrainer(1.0).check_place(where)
    for where in (None, place("NO"), place("MULTI_GPU")):
        InTrainer(1.0).check_place(where)
