"""`GradClip` in runs of Ignite's engines."""

import pytest
import torch
from ignite.engine import Events, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver
from ignite.handlers.base_logger import BaseOutputHandler

from gradclip.backends.ignite import GradClip
from tests.integrations.helpers import BATCH, MAX_NORM, POLICY, assert_differ, assert_same, check_log, data, net, share

X, Y = data()
BATCHES = list(zip(X.split(BATCH), Y.split(BATCH), strict=True))


class Log(BaseOutputHandler):
    """What a logger of Ignite shows after each iteration."""

    def __init__(self):
        super().__init__("training", metric_names="all")
        self.rows = []

    def __call__(self, engine, logger=None, event_name=None):
        found = self._setup_output_metrics_state_attrs(engine, key_tuple=False)
        self.rows.append({name.removeprefix("training/"): value for name, value in found.items()})


def run(clip=None, how="theirs", fused=False, accumulate=1, amp=False, scale=None, epochs=1, load=None, folder=None):
    """Train; ``how`` says whether it is clipped by PyTorch's function or by the handler with the threshold ``clip``."""
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, eps=1e-3, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale) if scale else None

    def loss(out, y):
        return torch.nn.functional.mse_loss(out.float(), y)

    if amp or scale or (clip and how == "theirs"):

        def step(engine, batch):
            with torch.autocast("cpu", torch.float16 if scale else torch.bfloat16, enabled=bool(amp or scale)):
                out = model(batch[0])
            value = loss(out, batch[1]) / accumulate
            (scaler.scale(value) if scaler else value).backward()
            if engine.state.iteration % accumulate == 0:
                if clip and how == "theirs":
                    if scaler:
                        scaler.unscale_(optimizer)
                    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
                if scaler:
                    scaler.step(optimizer)
                    scaler.update()
                else:
                    optimizer.step()
                optimizer.zero_grad()

        from ignite.engine import Engine

        trainer = Engine(step)
    else:
        trainer = create_supervised_trainer(model, optimizer, loss, gradient_accumulation_steps=accumulate)
    log = Log()
    kept = {"model": model, "optimizer": optimizer, "trainer": trainer}
    if scaler:
        kept["scaler"] = scaler
    if clip and how == "ours":
        kept["clip"] = GradClip(optimizer, clip, eps=0.0 if clip is POLICY else 1e-6).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, log)
    if folder and load is None:
        saver = Checkpoint(kept, DiskSaver(folder, require_empty=False), n_saved=None)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, saver)
    if load is not None:
        Checkpoint.load_objects(kept, torch.load(load, weights_only=True))
    trainer.run(BATCHES, max_epochs=epochs)
    return model, log.rows, kept


CASES = {
    "32": {},
    "fused": {"fused": True},
    "bf16": {"amp": True},
    "fp16": {"scale": 1024.0},
    "fp16 fused": {"scale": 1024.0, "fused": True},
    "bf16 fused": {"amp": True, "fused": True},
    "accumulation": {"accumulate": 2},
    "fp16 accumulation": {"scale": 1024.0, "accumulate": 2},
    "fp16 fused accumulation": {"scale": 1024.0, "fused": True, "accumulate": 2},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_trains_as_pytorchs_function_in_the_step(case):
    theirs, *_ = run(MAX_NORM, **case)
    ours, rows, _ = run(MAX_NORM, "ours", **case)
    assert_same(ours, theirs, 1e-5)
    assert_differ(ours, run(**case)[0])
    seen = {row["grad_norm"]: row for row in rows if row}
    norms = list(seen)
    for i, row in enumerate(seen.values()):
        check_log({**row, "gradclip/clipped": norms[i] > MAX_NORM})
    assert rows[-1]["gradclip/clipped"] == pytest.approx(share(norms))


def test_the_share_is_that_of_the_epoch():
    _, rows, _ = run(MAX_NORM, "ours", epochs=2)
    norms = [row["grad_norm"] for row in rows]
    assert rows[-1]["gradclip/clipped"] == pytest.approx(share(norms[8:]))


@pytest.mark.parametrize(
    "case", [{}, {"scale": 128.0}, {"scale": 128.0, "fused": True}], ids=["32", "fp16", "fp16 fused"]
)
def test_a_policy_in_ignites_checkpoint(tmp_path, case):
    whole, rows, _ = run(POLICY, "ours", epochs=2, folder=tmp_path, **case)
    resumed, later, _ = run(POLICY, "ours", epochs=2, load=tmp_path / "checkpoint_8.pt", **case)
    assert_same(resumed, whole, 0)
    thresholds = [row["gradclip/max_norm"] for row in later]
    assert thresholds == [row["gradclip/max_norm"] for row in rows[8:]]
    assert len(set(thresholds)) > 2


def test_detached_it_clips_and_reports_no_longer():
    model, other = net(), net()
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.01) for part in (model, other)]
    trainer = create_supervised_trainer(model, optimizers[0], torch.nn.functional.mse_loss)
    clip = GradClip(optimizers, MAX_NORM).attach(trainer)
    trainer.run(BATCHES)
    assert {"grad_norm/0", "gradclip/clipped/0"} <= set(trainer.state.metrics)
    assert len(clip.clippings) == 2
    clip.detach(trainer)
    assert clip.clippings == []
    trainer.run(BATCHES, max_epochs=1)
    assert not any(name.startswith("grad") for name in trainer.state.metrics)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="max_norm"):
        GradClip(torch.optim.SGD(net().parameters()), -1.0)
    with pytest.raises(TypeError, match="state_dict is 3, expected what state_dict"):
        GradClip(torch.optim.SGD(net().parameters()), 1.0).load_state_dict(3)
