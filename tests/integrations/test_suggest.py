"""``gradclip suggest`` on what real trainers wrote while gradclip clipped, against norms that hooks recorded."""

import json
import math
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader, SequentialSampler, TensorDataset
from transformers import Trainer, TrainingArguments

from gradclip.backends.lightning import GradClip
from gradclip.backends.transformers import GradClipCallback
from gradclip.monitor import read
from tests.integrations.helpers import BATCH, net
from tests.processes import run_one

STEPS = 60
MAX_NORM = 2.0
RATE = 1e-5
"""So small a learning rate that norms differ by their batches and not by the progress of the training."""


def spread() -> list[float]:
    """Factors for the targets of each batch: they spread widely, and none stands out."""
    return torch.exp(0.6 * torch.randn(STEPS, generator=torch.Generator().manual_seed(3))).tolist()


def spikes() -> list[float]:
    """Each tenth batch has targets that are ten thousand times too large."""
    return [1e4 if step % 10 == 7 else factor for step, factor in enumerate(spread())]


def percentile_95(norms: list[float]) -> float:
    """The 95th percentile by hand: 5 % of the norms exceed it."""
    ordered = sorted(norms)
    place = 0.95 * (len(ordered) - 1)
    low = int(place)
    return ordered[low] + (place - low) * (ordered[low + 1] - ordered[low])


def largest_usual(norms: list[float]) -> float:
    """More than 5 % of the norms are spikes: the largest of the others."""
    return max(norm for step, norm in enumerate(norms) if step % 10 != 7)


CASES = {"spread": (spread, percentile_95), "spikes": (spikes, largest_usual)}


def batches(factors: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(STEPS * BATCH, 3, generator=torch.Generator().manual_seed(2))
    return x, x.sum(1, keepdim=True) * torch.tensor(factors).repeat_interleave(BATCH)[:, None]


def recorded(model: torch.nn.Module) -> list[float]:
    """The norm of each step's gradients before clipping, from squares added in float64."""
    norms: list[float] = []
    model.register_forward_pre_hook(lambda *_: norms.append(0.0))

    def add(gradient):
        norms[-1] = math.hypot(norms[-1], float(gradient.double().norm()))

    for parameter in model.parameters():
        parameter.register_hook(add)
    return norms


class InOrder(Trainer):
    """A Trainer that takes the data in order."""

    def _get_train_sampler(self, *_):
        return SequentialSampler(self.train_dataset)


def transformers(folder: Path, factors: list[float], reporter: str = "none") -> list[float]:
    x, y = batches(factors)
    model = net()
    norms = recorded(model)
    arguments = TrainingArguments(
        str(folder), max_grad_norm=0, max_steps=STEPS, logging_steps=1, save_steps=STEPS, learning_rate=RATE,
        optim="sgd", per_device_train_batch_size=BATCH, report_to=reporter, use_cpu=True, disable_tqdm=True,
        remove_unused_columns=False,
    )  # fmt: skip
    trainer = InOrder(model, arguments, train_dataset=[{"x": a, "y": b} for a, b in zip(x, y, strict=True)])
    GradClipCallback(MAX_NORM).add_to(trainer)
    trainer.train()
    return norms


class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = net()

    def training_step(self, batch, _):
        loss = self.net(*batch)["loss"]
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=RATE)


def lightning(factors: list[float], logger) -> list[float]:
    module = Module()
    norms = recorded(module.net)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, callbacks=[GradClip(MAX_NORM)], log_every_n_steps=1, logger=logger,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(*batches(factors)), batch_size=BATCH))
    return norms


def trainer_state(folder, factors, _):
    return transformers(folder, factors), folder / f"checkpoint-{STEPS}" / "trainer_state.json"


def transformers_events(folder, factors, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(folder / "events"))
    norms = transformers(folder, factors, "tensorboard")
    (written,) = (folder / "events").rglob("*tfevents*")
    return norms, written


def metrics_csv(folder, factors, _):
    logger = CSVLogger(folder)
    return lightning(factors, logger), Path(logger.log_dir) / "metrics.csv"


def lightning_events(folder, factors, _):
    logger = TensorBoardLogger(folder)
    return lightning(factors, logger), Path(logger.log_dir)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("trained", [trainer_state, transformers_events, metrics_csv, lightning_events])
def test_it_suggests_what_one_calculates_by_hand(tmp_path, monkeypatch, trained, case):
    factors, by_hand = case
    norms, log = trained(tmp_path, factors(), monkeypatch)
    assert len(norms) == STEPS
    found = json.loads(run_one([sys.executable, "-m", "gradclip", "suggest", str(log), "--json"]))
    assert (found["verdict"], found["steps"], found["nonfinite"]) == ("clip", STEPS, 0)
    assert found["max_norm"] == pytest.approx(by_hand(norms), rel=1e-5)
    assert found["clipped"] == sum(norm > by_hand(norms) * (1 + 1e-5) for norm in norms) / STEPS
    assert found["percentiles"]["95"] == pytest.approx(percentile_95(norms), rel=1e-5)


@pytest.mark.parametrize("trained", [trainer_state, transformers_events, metrics_csv, lightning_events])
def test_the_log_tells_what_the_clipping_did(tmp_path, monkeypatch, trained):
    norms, log = trained(tmp_path, spread(), monkeypatch)
    history = read(log)
    assert history.norm.tolist() == pytest.approx(norms, rel=1e-5)
    assert history.max_norm.tolist() == [MAX_NORM] * STEPS
    assert history.coefficient.tolist() == pytest.approx([min(1, MAX_NORM / norm) for norm in norms], rel=1e-5)
    assert history.clipped.tolist() == [norm > MAX_NORM for norm in norms]
    assert 0 < history.clipped.sum() < STEPS
