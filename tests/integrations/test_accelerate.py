"""`ClippingAccelerator` in training loops with Accelerate, and `attach` on what ``prepare`` returns."""

import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.tracking import GeneralTracker
from torch.utils.data import DataLoader, TensorDataset

from gradclip.backends.accelerate import ClippingAccelerator
from gradclip.backends.torch import attach
from gradclip.monitor import NormMonitor
from tests.integrations.helpers import (
    BATCH,
    MAX_NORM,
    POLICY,
    assert_differ,
    assert_same,
    check_log,
    data,
    enable_fp16,
    net,
    share,
)


class Tracker(GeneralTracker):
    """A tracker that keeps what is logged."""

    name, requires_logging_directory = "kept", False

    def __init__(self):
        super().__init__()
        self.rows = []

    tracker = property(lambda self: self.rows)

    def store_init_configuration(self, values):
        pass

    def log(self, values, step=None, **_):
        self.rows.append(values)


def run(kind, clip=None, fused=False, accumulate=1, epochs=1, folder=None, load=False, scale=None, **arguments):
    """Train; ``clip`` gets the accelerator, the model and the optimizer, and returns a function that clips.

    With a ``scale``, it trains in fp16 with a GradScaler.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    tracker = Tracker()
    accelerator = kind(cpu=True, gradient_accumulation_steps=accumulate, log_with=tracker, **arguments)
    accelerator.init_trackers("")
    if scale:
        enable_fp16(accelerator, scale)
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, eps=1e-3, fused=fused)
    loader = DataLoader(TensorDataset(*data()), batch_size=BATCH)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    clip_ = clip(accelerator, model, optimizer) if clip else lambda: None
    if load:
        accelerator.load_state(folder)
    for epoch in range(epochs):
        for x, y in loader:
            with accelerator.accumulate(model):
                accelerator.backward(model(x, y)["loss"])
                clip_()
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                accelerator.log({"loss": 0.0})
        if folder and not load and epoch == 0:
            accelerator.save_state(folder)
    return model, tracker.rows


def by_norm(accelerator, model, _):
    return lambda: accelerator.clip_grad_norm_(model.parameters(), MAX_NORM) if accelerator.sync_gradients else None


def without_asking(accelerator, model, _):
    return lambda: accelerator.clip_grad_norm_(model.parameters(), MAX_NORM)


def by_value(accelerator, model, _):
    return lambda: accelerator.clip_grad_value_(model.parameters(), 0.5)


def attached(accelerator, model, optimizer):
    attach(optimizer, MAX_NORM, eps=1e-6)
    return lambda: None


CASES = {
    "32": {},
    "bf16": {"mixed_precision": "bf16"},
    "fp16": {"scale": 128.0},  # 1024 overflows at the bad batches
    "fused": {"fused": True},
    "bf16 fused": {"mixed_precision": "bf16", "fused": True},
    "fp16 fused": {"scale": 128.0, "fused": True},
    "accumulation": {"accumulate": 2},
    "fp16 accumulation": {"scale": 128.0, "accumulate": 2},
    "fp16 fused accumulation": {"scale": 128.0, "fused": True, "accumulate": 2},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("clip", [by_norm, without_asking])
def test_it_trains_as_accelerates_own_clipping(case, clip):
    theirs, _ = run(Accelerator, by_norm, **case)
    ours, rows = run(ClippingAccelerator, clip, **case)
    assert_same(ours, theirs, 1e-5)
    assert_differ(ours, run(Accelerator, **case)[0])
    for row in rows:
        check_log(row)
    assert len(rows) == 8 // case.get("accumulate", 1)


def test_a_step_that_the_scaler_skips():
    """What is attached does not count it. The function is called before the scaler decides, and logs what it found."""
    monitors = []

    def watched(accelerator, model, optimizer):
        monitors.append(NormMonitor(attach(optimizer, MAX_NORM, eps=1e-6)))
        return lambda: None

    with_attach, _ = run(Accelerator, watched, scale=2.0**18)
    by_function, rows = run(ClippingAccelerator, without_asking, scale=2.0**18)
    assert_same(with_attach, by_function, 1e-5)
    norms = monitors[0].history().norm.tolist()
    assert 0 < len(norms) < len(rows) == 8
    assert [row["grad_norm"] for row in rows if math.isfinite(row["grad_norm"])] == pytest.approx(norms)


def test_between_steps_the_norm_is_measured_and_nothing_is_written():
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = ClippingAccelerator(cpu=True, gradient_accumulation_steps=2)
    model = net()
    weight = next(model.parameters())
    weight.grad = torch.full_like(weight, 10.0)
    accelerator.gradient_state._set_sync_gradients(False)
    assert accelerator.clip_grad_norm_(model.parameters(), 1.0) == math.sqrt(24 * 100)
    accelerator.clip_grad_value_(model.parameters(), 1.0)
    assert (weight.grad == 10).all()
    assert accelerator.clipping_numbers() == {}


def test_by_value():
    assert_same(run(ClippingAccelerator, by_value)[0], run(Accelerator, by_value)[0], 0)


def test_the_norm_is_returned_and_the_log_has_the_share():
    norms = []

    def clip(accelerator, model, _):
        return lambda: norms.append(accelerator.clip_grad_norm_(model, MAX_NORM, norm_type="inf").item())

    _, rows = run(ClippingAccelerator, clip)
    assert [row["grad_norm"] for row in rows] == norms
    assert [row["gradclip/clipped"] for row in rows] == [norm > MAX_NORM for norm in norms]
    assert share(norms)


def test_what_is_logged_by_the_user_stays():
    AcceleratorState._reset_state(reset_partial_state=True)
    tracker = Tracker()
    accelerator = ClippingAccelerator(cpu=True, log_with=tracker)
    accelerator.init_trackers("")
    model = net()
    for scale in (1.0, 100.0):
        model.zero_grad()
        (model(*data())["loss"] * scale).backward()
        norm = accelerator.clip_grad_norm_(model.parameters(), 100.0)
    accelerator.log({"loss": 1.0, "grad_norm": 7.0})
    assert tracker.rows[0]["gradclip/clipped"] == 0.5
    assert tracker.rows[0]["grad_norm"] == 7.0 != norm
    accelerator.log({"loss": 1.0})
    assert tracker.rows[1] == {"loss": 1.0}


def test_a_policy_belongs_to_an_optimizer():
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(TypeError, match=r"pass it to gradclip\.backends\.torch\.attach"):
        ClippingAccelerator(cpu=True).clip_grad_norm_(net().parameters(), POLICY)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_attach_on_what_prepare_returns(case):
    assert_same(run(Accelerator, attached, **case)[0], run(Accelerator, by_norm, **case)[0], 1e-5)


@pytest.mark.parametrize(
    "case", [{}, {"scale": 128.0}, {"scale": 128.0, "fused": True}], ids=["32", "fp16", "fp16 fused"]
)
def test_a_policy_in_accelerates_checkpoint(tmp_path, case):
    seen = []

    def clip(accelerator, model, optimizer):
        clipping = attach(optimizer, POLICY)
        accelerator.register_for_checkpointing(clipping)
        monitor = NormMonitor(clipping)
        seen.append(monitor)
        return lambda: accelerator.log(monitor.last()) if accelerator.sync_gradients and monitor.last() else None

    whole, rows = run(Accelerator, clip, epochs=2, folder=tmp_path, **case)
    resumed, _ = run(Accelerator, clip, folder=tmp_path, load=True, **case)
    assert_same(resumed, whole, 0)
    thresholds = [monitor.history().max_norm.tolist() for monitor in seen]
    assert thresholds[1] == thresholds[0][8:]
    assert len(set(thresholds[1])) > 2
    assert any("gradclip/max_norm" in row for row in rows)
