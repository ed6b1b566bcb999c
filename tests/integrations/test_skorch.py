"""`GradClip` in runs of skorch's nets.

skorch itself has neither a GradScaler nor accumulation: its documentation shows both in a ``train_step`` of one's own,
or leaves them to Accelerate by `AccelerateMixin`.
"""

import contextlib
import io
import pickle

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetRegressor
from skorch.callbacks import Checkpoint, GradientNormClipping, PrintLog
from skorch.hf import AccelerateMixin

from gradclip.backends.skorch import GradClip
from tests.integrations.helpers import (
    BATCH,
    MAX_NORM,
    POLICY,
    STEPS,
    assert_differ,
    assert_same,
    check_log,
    data,
    enable_fp16,
    net,
    share,
)

X, Y = (part.numpy() for part in data())


class Half(torch.nn.Module):
    """The network under autocast to a dtype, if there is one."""

    def __init__(self, cast=None):
        super().__init__()
        self.net, self.cast = net(), cast

    def forward(self, x):
        with torch.autocast("cpu", self.cast) if self.cast else contextlib.nullcontext():
            return self.net(x).float()


class ByHand(NeuralNetRegressor):
    """Accumulates gradients over ``every`` batches, and scales the loss if there is a ``scale``."""

    every, scale = 1, None

    def initialize(self):
        self.batches = 0
        self.scaler = torch.amp.GradScaler("cpu", init_scale=self.scale or 1.0, enabled=self.scale is not None)
        return super().initialize()

    def train_step_single(self, batch, **fit_params):
        self._set_training(True)
        out = self.infer(batch[0], **fit_params)
        loss = self.get_loss(out, batch[1], X=batch[0], training=True)
        self.scaler.scale(loss / self.every).backward()
        return {"loss": loss, "y_pred": out}

    def train_step(self, batch, **fit_params):
        self.batches += 1
        step = self.train_step_single(batch, **fit_params)
        if self.batches % self.every == 0:
            self.before_step(batch)
            self.scaler.step(self.optimizer_)
            self.scaler.update()
            self.optimizer_.zero_grad()
        return step

    def before_step(self, batch):
        """Call what skorch's own clipping needs: it would see scaled gradients without `unscale_`."""
        if any(isinstance(callback, GradientNormClipping) for _, callback in self.callbacks_):
            self.scaler.unscale_(self.optimizer_)
        found = list(self.get_all_learnable_params())
        self.notify("on_grad_computed", named_parameters=found, batch=batch, training=True)


class Accumulating(ByHand):
    every = 2


class Scaled(ByHand):
    scale = 128.0  # 1024 overflows at the bad batches


class Overflowing(ByHand):
    scale = 2.0**18


class ScaledAndAccumulating(Scaled):
    every = 2


def make(callbacks=(), kind=NeuralNetRegressor, **arguments):
    given = {
        "optimizer": torch.optim.AdamW, "lr": 0.05, "optimizer__eps": 1e-3, "max_epochs": 1, "batch_size": BATCH,
        "train_split": None, "iterator_train__shuffle": False, "verbose": 0, **arguments,
    }  # fmt: skip
    return kind(Half, callbacks=list(callbacks), **given)


FP16 = {"kind": Scaled, "module__cast": torch.float16}
FUSED = {"optimizer__fused": True}
CASES = {
    "32": {},
    "bf16": {"module__cast": torch.bfloat16},
    "fp16": FP16,
    "fused": FUSED,
    "bf16 fused": {"module__cast": torch.bfloat16, **FUSED},
    "fp16 fused": {**FP16, **FUSED},
    "accumulation": {"kind": Accumulating},
    "fp16 accumulation": {**FP16, "kind": ScaledAndAccumulating},
    "fp16 fused accumulation": {**FP16, **FUSED, "kind": ScaledAndAccumulating},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_trains_as_skorchs_own_clipping(case):
    theirs = make([GradientNormClipping(MAX_NORM)], **case).fit(X, Y)
    ours = make([GradClip(MAX_NORM, eps=1e-6)], **case).fit(X, Y)
    assert_same(ours.module_, theirs.module_, 1e-5)
    assert_differ(ours.module_, make(**case).fit(X, Y).module_)
    rows = [row for row in ours.history[-1]["batches"] if "grad_norm" in row]
    assert len(rows) == STEPS // getattr(case.get("kind"), "every", 1)
    for row in rows:
        check_log(row)
    norms = [row["grad_norm"] for row in rows]
    assert ours.history[-1]["gradclip/clipped"] == share(norms)
    assert np.isclose(ours.history[-1]["grad_norm"], np.mean(norms))


class Accelerated(AccelerateMixin, NeuralNetRegressor):
    """Trains by Accelerate, with its accumulation and mixed precision."""


def accelerated(callbacks, every=1, mixed_precision="no", scale=None, **case):
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=every, mixed_precision=mixed_precision)
    if scale:
        enable_fp16(accelerator, scale)
    return make(callbacks, Accelerated, accelerator=accelerator, device=None, **case).fit(X, Y)


CASES_OF_ACCELERATE = {"32": {}, "bf16": {"mixed_precision": "bf16"}, "fused": FUSED, "accumulation": {"every": 2}}


@pytest.mark.parametrize("case", CASES_OF_ACCELERATE.values(), ids=CASES_OF_ACCELERATE)
def test_nets_that_train_by_accelerate(case):
    theirs = accelerated([GradientNormClipping(MAX_NORM)], **case)
    ours = accelerated([GradClip(MAX_NORM, eps=1e-6)], **case)
    assert_same(ours.module_, theirs.module_, 1e-5)
    assert_differ(ours.module_, accelerated([], **case).module_)
    rows = [row for row in ours.history[-1]["batches"] if "grad_norm" in row]
    assert len(rows) == STEPS // case.get("every", 1)
    for row in rows:
        check_log(row)


@pytest.mark.parametrize("case", [{}, FUSED], ids=["", "fused"])
def test_fp16_by_accelerate_where_skorchs_own_clipping_sees_scaled_gradients(case):
    theirs = make([GradientNormClipping(MAX_NORM)], **FP16, **case).fit(X, Y)
    ours = accelerated([GradClip(MAX_NORM, eps=1e-6)], scale=Scaled.scale, **case)
    assert_same(ours.module_, theirs.module_, 1e-5)
    scaled = accelerated([GradientNormClipping(MAX_NORM)], scale=Scaled.scale, **case)
    assert_differ(scaled.module_, theirs.module_)


def test_a_step_that_the_scaler_skips_is_not_recorded():
    one = make([GradClip(MAX_NORM)], **{**FP16, "kind": Overflowing}).fit(X, Y)
    norms = [row["grad_norm"] for row in one.history[-1]["batches"] if "grad_norm" in row]
    assert 0 < len(norms) < STEPS
    assert np.isfinite(norms).all()
    assert one.history[-1]["grad_norm"] == np.mean(norms)


def test_the_table_that_skorch_prints_has_both():
    lines = io.StringIO()
    make([GradClip(MAX_NORM), ("print", PrintLog(sink=lambda text: lines.write(f"{text}\n")))], max_epochs=2).fit(X, Y)
    head = lines.getvalue().splitlines()[0].split()
    assert {"grad_norm", "gradclip/clipped"} <= set(head)


@pytest.mark.parametrize("change", [{"optimizer__betas": (0.5, 0.9)}, {"lr": 0.1}])
def test_set_params_may_make_another_optimizer(change):
    both = make([GradClip(MAX_NORM, eps=1e-6)]), make([GradientNormClipping(MAX_NORM)])
    for one in both:
        one.fit(X, Y)
        one.set_params(**change)
        one.partial_fit(X, Y)
    assert_same(both[0].module_, both[1].module_, 1e-5)


def test_an_optimizer_that_is_replaced_while_it_trains():
    from skorch.callbacks import Callback

    class Replace(Callback):
        def on_batch_end(self, net, training=None, **_):
            if training and len(net.history[-1]["batches"]) == 4:
                net._initialize_optimizer()

    ours = make([Replace(), GradClip(MAX_NORM, eps=1e-6)]).fit(X, Y)
    theirs = make([Replace(), GradientNormClipping(MAX_NORM)]).fit(X, Y)
    assert_same(ours.module_, theirs.module_, 1e-5)


def test_clipping_twice_is_refused():
    with pytest.raises(ValueError, match=r"'GradientNormClipping', which clips to 1\.0, expected GradClip alone"):
        make([GradientNormClipping(1.0), GradClip(1.0)]).fit(X, Y)
    with pytest.raises(ValueError, match="max_norm"):
        make([GradClip(-1.0)]).fit(X, Y)


def test_the_threshold_can_be_set_and_searched():
    one = make([GradClip(100.0, eps=1e-6)]).fit(X, Y)
    one.set_params(callbacks__GradClip__max_norm=MAX_NORM)
    one.initialize().fit(X, Y)
    assert one.history[-1]["batches"][0]["gradclip/max_norm"] == MAX_NORM
    search = GridSearchCV(make([GradClip()]), {"callbacks__GradClip__max_norm": [0.1, 10.0]}, cv=2, scoring="r2")
    search.fit(X, Y)
    assert search.best_params_["callbacks__GradClip__max_norm"] in (0.1, 10.0)
    assert clone(search.best_estimator_).callbacks[0].max_norm in (None, 0.1, 10.0)


def thresholds(one):
    return [row["gradclip/max_norm"] for epoch in one.history for row in epoch["batches"]]


@pytest.mark.parametrize("case", [{}, FP16, {**FP16, **FUSED}], ids=["32", "fp16", "fp16 fused"])
def test_a_pickled_net_goes_on_with_the_state_of_a_policy(case):
    whole = make([GradClip(POLICY)], **case).fit(X, Y)
    resumed = pickle.loads(pickle.dumps(whole))
    for one in (whole, resumed):
        one.partial_fit(X, Y)
    assert_same(resumed.module_, whole.module_, 0)
    assert thresholds(resumed) == thresholds(whole)
    assert len(set(thresholds(whole)[STEPS:])) > 2


def is_first_epoch(net):
    return len(net.history) == 1


def test_skorchs_checkpoint_of_a_net_that_trains(tmp_path):
    keep = Checkpoint(dirname=tmp_path, f_pickle="net.pkl", monitor=is_first_epoch)
    whole = make([GradClip(POLICY), keep], max_epochs=2).fit(X, Y)
    resumed = pickle.loads((tmp_path / "net.pkl").read_bytes())
    resumed.partial_fit(X, Y, epochs=1)
    assert_same(resumed.module_, whole.module_, 0)
    assert thresholds(resumed) == thresholds(whole)
