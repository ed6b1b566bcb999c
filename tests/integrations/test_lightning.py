"""`GradClip` in runs of Lightning's Trainer, and `attach` with Fabric."""

import math

import lightning as L
import pytest
import pytorch_lightning
import torch
from lightning.fabric.plugins import MixedPrecision as FabricPrecision
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader, TensorDataset

from gradclip.backends.lightning import GradClip
from gradclip.backends.torch import attach
from gradclip.monitor import NormMonitor
from tests.integrations.helpers import (
    BATCH,
    MAX_NORM,
    POLICY,
    STEPS,
    assert_differ,
    assert_same,
    check_log,
    data,
    net,
    share,
)


def module_of(base):
    class Module(base):
        def __init__(self, fused=False):
            super().__init__()
            self.net, self.fused = net(), fused
            self.seen = []

        def training_step(self, batch, _):
            return self.net(*batch)["loss"]

        def on_train_batch_end(self, *_):
            self.seen.append({k: float(v) for k, v in self.trainer.callback_metrics.items()})

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.05, eps=1e-3, fused=self.fused)

    return Module


Module = module_of(L.LightningModule)


def loader():
    return DataLoader(TensorDataset(*data()), batch_size=BATCH)


def fp16(scale=1024.0):
    return {"plugins": MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))}


def run(folder, callbacks=(), module=None, resume=None, epochs=1, make=L.Trainer, **arguments):
    arguments = {"logger": False, "enable_checkpointing": False, **arguments}
    trainer = make(
        accelerator="cpu", devices=1, max_epochs=epochs, callbacks=list(callbacks), log_every_n_steps=1,
        default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False, **arguments,
    )  # fmt: skip
    module = Module() if module is None else module
    trainer.fit(module, loader(), ckpt_path=resume, weights_only=False)
    return module


PRECISIONS = {
    "32": dict,
    "bf16": lambda: {"precision": "bf16-mixed"},
    "fp16": fp16,
    "accumulation": lambda: {"accumulate_grad_batches": 2},
    "fp16-accumulation": lambda: {"accumulate_grad_batches": 2, **fp16()},
}


@pytest.mark.parametrize("name", PRECISIONS)
def test_it_trains_as_lightnings_own_clipping(tmp_path, name):
    theirs = run(tmp_path, gradient_clip_val=MAX_NORM, **PRECISIONS[name]())
    ours = run(tmp_path, [GradClip(MAX_NORM, eps=1e-6)], **PRECISIONS[name]())
    assert_same(ours, theirs, 1e-5)
    assert_differ(ours, run(tmp_path, **PRECISIONS[name]()))
    rows = [row for row in ours.seen if row]
    for row in rows:
        check_log({**row, "gradclip/clipped": row["gradclip/clipped_step"]})
    assert share(row["grad_norm"] for row in ours.seen if row)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_fused_with_a_scaler_where_lightnings_own_refuses(tmp_path, accumulate):
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        run(tmp_path, module=Module(fused=True), gradient_clip_val=MAX_NORM, **fp16())
    arguments = {"accumulate_grad_batches": accumulate}
    plain = run(tmp_path, gradient_clip_val=MAX_NORM, **fp16(), **arguments)
    ours = run(tmp_path, [GradClip(MAX_NORM, eps=1e-6)], Module(fused=True), **fp16(), **arguments)
    assert_same(ours, plain, 1e-5)
    unscaled = run(tmp_path, [GradClip(MAX_NORM)], **fp16(), **arguments)
    for mine, other in zip(ours.seen, unscaled.seen, strict=True):
        assert math.isclose(mine.get("grad_norm", 0), other.get("grad_norm", 0), rel_tol=1e-3)


def test_fused_without_a_scaler(tmp_path):
    theirs = run(tmp_path, module=Module(fused=True), gradient_clip_val=MAX_NORM)
    assert_same(run(tmp_path, [GradClip(MAX_NORM, eps=1e-6)], Module(fused=True)), theirs, 1e-5)


def test_a_step_that_the_scaler_skips_is_not_counted(tmp_path):
    monitor = NormMonitor()
    run(tmp_path, [GradClip(MAX_NORM, monitor=monitor)], **fp16(2.0**18))
    norms = monitor.history().norm
    assert 0 < len(norms) < STEPS
    assert all(map(math.isfinite, norms))


def test_lightnings_logger_has_norm_and_share(tmp_path):
    logger = CSVLogger(tmp_path)
    module = run(tmp_path, [GradClip(MAX_NORM)], logger=logger)
    text = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert {"grad_norm", "gradclip/coefficient", "gradclip/clipped_step", "gradclip/clipped_epoch"} <= set(
        text.splitlines()[0].split(",")
    )
    expected = share(row["grad_norm"] for row in module.seen)
    assert math.isclose(module.trainer.callback_metrics["gradclip/clipped_epoch"], expected, rel_tol=1e-6)


def test_clipping_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"gradient_clip_val=1\.0, expected None with the callback GradClip"):
        run(tmp_path, [GradClip(1.0)], gradient_clip_val=1.0)
    with pytest.raises(ValueError, match="max_norm"):
        GradClip(math.nan)


@pytest.mark.parametrize("arguments", [dict, fp16], ids=["32", "fp16"])
def test_a_resumed_run_has_the_thresholds_that_it_would_have_had(tmp_path, arguments):
    keep = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")
    whole = run(tmp_path, [GradClip(POLICY), keep], epochs=2, enable_checkpointing=True, **arguments())
    saved = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["callbacks"]["GradClip"]
    assert saved["clippings"][0]["policies"]["all"]["mean"] > 0
    resumed = run(tmp_path, [GradClip(POLICY)], resume=tmp_path / "epoch=0.ckpt", epochs=2, **arguments())
    names = ("grad_norm", "gradclip/coefficient", "gradclip/max_norm")
    for mine, other in zip(resumed.seen, whole.seen[STEPS:], strict=True):
        assert [mine[name] for name in names] == [other[name] for name in names]
    assert_same(resumed, whole, 0)
    assert len({row["gradclip/max_norm"] for row in whole.seen[STEPS:]}) > 2


class Gan(L.LightningModule):
    """Two optimizers by hand; with ``clip``, each is clipped by Lightning's own function."""

    def __init__(self, clip=False):
        super().__init__()
        self.automatic_optimization = False
        self.one, self.other, self.clip = net(), net(), clip

    def training_step(self, batch, _):
        for part, optimizer in zip((self.one, self.other), self.optimizers(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(part(*batch)["loss"] * (3 if part is self.other else 1))
            if self.clip:
                self.clip_gradients(optimizer, MAX_NORM, "norm")
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.02) for part in (self.one, self.other)]


@pytest.mark.parametrize("scale", [None, 16.0], ids=["32", "fp16"])  # 1024 overflows at the bad batches
def test_manual_optimization_with_two_optimizers(tmp_path, scale):
    theirs = run(tmp_path, module=Gan(clip=True), **(fp16(1.0) if scale else {}))  # it sees scaled gradients
    callback = GradClip(MAX_NORM, eps=1e-6)
    ours = run(tmp_path, [callback], Gan(), **(fp16(scale) if scale else {}))
    assert_same(ours, theirs, 1e-5)
    metrics = ours.trainer.callback_metrics
    assert {"grad_norm/0", "grad_norm/1", "gradclip/clipped/1_epoch"} <= set(metrics)
    assert metrics["gradclip/clipped/1_epoch"] > metrics["gradclip/clipped/0_epoch"]
    assert callback.clippings == [], "the optimizers are free after training"


def test_lbfgs_calls_a_closure_many_times(tmp_path):
    class Lbfgs(Module):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.01, max_iter=3)

    theirs = run(tmp_path, module=Lbfgs(), gradient_clip_val=MAX_NORM)
    assert_same(run(tmp_path, [GradClip(MAX_NORM, eps=1e-6)], Lbfgs()), theirs, 1e-4)


def test_the_callback_runs_in_pytorch_lightning_too(tmp_path):
    made = module_of(pytorch_lightning.LightningModule)
    theirs = run(tmp_path, module=made(), make=pytorch_lightning.Trainer, gradient_clip_val=MAX_NORM)
    ours = run(tmp_path, [GradClip(MAX_NORM, eps=1e-6)], made(), make=pytorch_lightning.Trainer)
    assert_same(ours, theirs, 1e-5)


def fabric_run(precision, clip, fused=False):
    plugins = FabricPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    fabric = L.Fabric(accelerator="cpu", devices=1, plugins=plugins if precision == "16" else None)
    model = net()
    model, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=0.05, eps=1e-3, fused=fused))
    clipping = attach(optimizer, MAX_NORM, eps=1e-6) if clip == "attach" else None
    for x, y in fabric.setup_dataloaders(loader()):
        optimizer.zero_grad()
        fabric.backward(model(x, y)["loss"])
        if clip == "fabric":
            fabric.clip_gradients(model, optimizer, max_norm=MAX_NORM, error_if_nonfinite=False)
        optimizer.step()
    return model, clipping


@pytest.mark.parametrize("precision", ["32", "16"])
def test_fabric(precision):
    theirs, _ = fabric_run(precision, "fabric")
    for fused in (False, True):
        ours, clipping = fabric_run(precision, "attach", fused)
        assert_same(ours, theirs, 1e-5)
        assert clipping.norm > 0
