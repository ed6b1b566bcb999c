"""`GradClip` in runs of the algorithms of Stable-Baselines3.

These have neither mixed precision, nor a GradScaler, nor accumulation, so there are no tests of these.
"""

import math
from copy import deepcopy

import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.logger import KVWriter, Logger

from gradclip.backends.sb3 import GradClip
from gradclip.policies import ZClip
from tests.integrations.helpers import assert_differ, assert_same

POLICY = ZClip(alpha=0.8, z_thresh=0.5, max_norm=1e6, warmup_steps=2)


class Rows(KVWriter):
    """Keeps what the logger dumps."""

    def __init__(self):
        self.rows = []

    def write(self, key_values, key_excluded, step=0):
        self.rows.append(dict(key_values))

    def close(self):
        pass


COMMON = {"policy": "MlpPolicy", "seed": 0, "device": "cpu", "verbose": 0, "policy_kwargs": {"net_arch": [16]}}
ON = {"n_steps": 64, **COMMON}
OFF = {"learning_starts": 20, "train_freq": 4, "batch_size": 16, "buffer_size": 1000, **COMMON}


def fused(arguments):
    kwargs = {**COMMON["policy_kwargs"], "optimizer_class": torch.optim.Adam, "optimizer_kwargs": {"fused": True}}
    return {**arguments, "policy_kwargs": kwargs}


def learn(kind, arguments, callback=None, steps=256, env="CartPole-v1", model=None, reset=True):
    model = kind(env=env, **deepcopy(arguments)) if model is None else model
    rows = Rows()
    model.set_logger(Logger(None, [rows]))
    model.learn(steps, callback=callback, log_interval=1, reset_num_timesteps=reset)
    return model, rows.rows


@pytest.mark.parametrize("change", [dict, fused], ids=["", "fused"])
@pytest.mark.parametrize(
    ("kind", "arguments", "max_norm"),
    [(PPO, {"batch_size": 32, "n_epochs": 2, **ON}, 0.3), (A2C, {**ON, "n_steps": 16}, 0.3), (DQN, OFF, 0.3)],
)
def test_it_trains_as_the_algorithms_own_clipping(kind, arguments, max_norm, change):
    arguments = change(arguments)
    theirs, _ = learn(kind, {**arguments, "max_grad_norm": max_norm})
    off = {**arguments, "max_grad_norm": math.inf}
    ours, rows = learn(kind, off, GradClip(max_norm, eps=1e-6))
    assert_same(ours.policy, theirs.policy, 1e-5)
    assert_differ(ours.policy, learn(kind, off)[0].policy)
    shown = [row for row in rows if "grad_norm" in row]
    assert shown
    assert all(row["gradclip/max_norm"] == max_norm and 0 <= row["gradclip/clipped"] <= 1 for row in shown)
    assert any(row["gradclip/clipped"] > 0 for row in shown)


class ByHand(SAC):
    """Clips as one would write it into SAC, which has no clipping: before each network's step."""

    limits = None

    def train(self, gradient_steps, batch_size=64):
        for name, limit in self.limits.items():
            optimizer = getattr(self, name).optimizer
            if not hasattr(optimizer, "plain_step"):
                optimizer.plain_step = optimizer.step
                optimizer.step = self.clipping(optimizer, limit)
        super().train(gradient_steps, batch_size)

    def clipping(self, optimizer, limit):
        def step(closure=None):
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], limit)
            return optimizer.plain_step()

        return step


def test_each_network_of_sac_has_a_threshold_of_its_own():
    limits = {"actor": 0.5, "critic": 2.0}
    by_hand = type("ByHand", (ByHand,), {"limits": limits})
    theirs, _ = learn(by_hand, OFF, env="Pendulum-v1", steps=450)
    ours, rows = learn(SAC, OFF, GradClip(limits, eps=1e-6), env="Pendulum-v1", steps=450)
    assert_same(ours.policy, theirs.policy, 1e-4)
    shown = [row for row in rows if "grad_norm/actor" in row]
    assert shown[-1]["gradclip/max_norm/actor"] == 0.5
    assert shown[-1]["gradclip/max_norm/critic"] == 2.0
    assert {"gradclip/clipped/actor", "gradclip/clipped/critic"} <= set(shown[-1])


def test_one_threshold_for_all_networks_and_the_entropy_coefficient_only_by_name():
    callback = GradClip(0.5)
    seen = []
    model = TD3(env="Pendulum-v1", **deepcopy(OFF))
    callback._on_step = lambda: seen.append(set(callback.clippings)) or True
    learn(TD3, OFF, callback, env="Pendulum-v1", steps=60, model=model)
    assert seen[-1] == {"actor", "critic"}
    assert callback.clippings == {}, "the optimizers are free after learn"
    with pytest.raises(ValueError, match="names the network 'ent_coef', expected one of actor, critic, which TD3 has"):
        learn(TD3, OFF, GradClip({"ent_coef": 1.0}), env="Pendulum-v1", steps=60)
    _, rows = learn(SAC, OFF, GradClip({"ent_coef": 0.1}), env="Pendulum-v1", steps=250)
    assert any(row.get("gradclip/max_norm") == pytest.approx(0.1) for row in rows)


def test_clipping_twice_is_refused():
    for kind, default in ((PPO, 0.5), (DQN, 10)):
        with pytest.raises(ValueError, match=rf"max_grad_norm={default}, expected inf with GradClip"):
            learn(kind, {"policy": "MlpPolicy"}, GradClip(0.5), steps=1)
    with pytest.raises(ValueError, match="max_norm"):
        GradClip({"actor": -1.0})
    with pytest.raises(TypeError, match="max_nrom"):
        GradClip({"actor": 1.0}, max_nrom=2)


OURS = {**ON, "batch_size": 32, "n_epochs": 2, "max_grad_norm": math.inf}


def test_a_loaded_model_says_that_it_is_not_clipped_and_goes_on_with_its_policy(tmp_path):
    callback = GradClip(POLICY)
    model, _ = learn(PPO, OURS, callback)
    state = callback._clips["policy"].state_dict()
    assert state["clippings"][0]["policies"]["all"]["mean"] > 0
    model.save(tmp_path / "model.zip")
    with pytest.warns(UserWarning, match=r"a loaded model has new optimizers, which are not clipped: call "):
        loaded = PPO.load(tmp_path / "model.zip", env=model.env, device="cpu")
    loaded.save(tmp_path / "again.zip")
    with pytest.warns(UserWarning, match="not clipped"):
        PPO.load(tmp_path / "again.zip")
    # The same from here on: the loaded model, and the one that was saved.
    ends = []
    for one, clip in ((model, callback), (loaded, GradClip(POLICY))):
        one.set_random_seed(1)
        torch.manual_seed(1)
        learn(PPO, OURS, clip, model=one, steps=128)
        ends.append((one.policy, clip._clips["policy"].state_dict()))
    assert_same(ends[0][0], ends[1][0], 0)
    assert ends[0][1] == ends[1][1] != state


def test_optimizers_that_are_replaced_during_learn_are_clipped():
    class Replaced(GradClip):
        def _on_step(self):
            groups = self.model.policy.optimizer.param_groups
            self.model.policy.optimizer = torch.optim.SGD(groups[0]["params"], lr=0.01)
            return True

    _, rows = learn(PPO, OURS, Replaced(0.1), steps=192)
    assert sum("grad_norm" in row for row in rows) >= 2
