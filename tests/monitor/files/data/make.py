"""Makes the logs in this folder with the real tools, and beside each the norms that the tool was given (true.json).

Run it in an environment with torch 2.13.0, transformers 5.24.0, lightning 2.6.6, tensorboard 2.21.0 and mlflow-skinny
3.17.2: ``python tests/monitor/files/data/make.py``. The norms in true.json come from a hook that adds up the squares
of the gradients in float64, not from the log. An export of W&B's web page needs their server: wandb.csv is written by
hand in the format of such an export.
"""

import json
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).parent
STEPS = 30
TRUE: dict[str, list[float]] = {}


def norm_of(model: torch.nn.Module) -> float:
    """Return the norm of all gradients, from squares added in float64."""
    squares = [float((p.grad.double() ** 2).sum()) for p in model.parameters() if p.grad is not None]
    return math.sqrt(sum(squares))


def model() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and targets; one batch in ten has targets that are fifty times too large."""
    torch.manual_seed(1)
    made = []
    for step in range(STEPS):
        x = torch.randn(16, 4)
        made.append((x, x.sum(1, keepdim=True) * (50.0 if step % 10 == 7 else 1.0)))
    return made


def transformers(folder: Path) -> None:
    """Trainer writes trainer_state.json at a checkpoint, and events for TensorBoard."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Regression(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = model()

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            out = self.layers(x)
            return {"loss": torch.nn.functional.mse_loss(out, labels), "logits": out}

    norms: list[float] = []
    network = Regression()

    class Record(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            norms.append(0.0)

    def add(grad: torch.Tensor) -> None:
        norms[-1] = math.hypot(norms[-1], float(grad.double().norm()))

    for parameter in network.parameters():
        parameter.register_hook(add)
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "events")
    data = [{"x": a, "labels": b} for x, y in batches() for a, b in zip(x, y, strict=True)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=16,
        max_steps=STEPS,
        logging_steps=1,
        save_steps=STEPS,
        learning_rate=1e-2,
        report_to=["tensorboard"],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    Trainer(model=network, args=arguments, train_dataset=data, callbacks=[Record()]).train()
    shutil.copy(folder / f"checkpoint-{STEPS}" / "trainer_state.json", HERE / "trainer_state.json")
    (events,) = (folder / "events").rglob("*tfevents*")
    shutil.copy(events, HERE / "transformers.tfevents")
    TRUE["transformers"] = norms


def lightning(folder: Path) -> None:
    """CSVLogger writes metrics.csv; grad_norm() of Lightning gives the columns."""
    import lightning
    from lightning.pytorch.loggers import CSVLogger
    from lightning.pytorch.utilities import grad_norm

    norms: list[float] = []

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = model()

        def training_step(self, batch, index):
            loss = torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch, index):
            self.log("val_loss", torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1]))

        def on_before_optimizer_step(self, optimizer):
            norms.append(norm_of(self))
            self.log_dict(grad_norm(self.layers, norm_type=2))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-3)

    loader = torch.utils.data.DataLoader(batches(), batch_size=None)
    trainer = lightning.Trainer(
        max_epochs=2,
        logger=CSVLogger(folder),
        log_every_n_steps=1,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_checkpointing=False,
        gradient_clip_val=5.0,
    )
    trainer.fit(Module(), loader, loader)
    (written,) = folder.rglob("metrics.csv")
    shutil.copy(written, HERE / "lightning.csv")
    TRUE["lightning"] = norms


def tensorboard(folder: Path) -> None:
    """SummaryWriter of torch, with scalars of both kinds, a histogram, and a run that was resumed at step 20."""
    from torch.utils.tensorboard import SummaryWriter

    norms = [0.5 + 0.25 * step for step in range(STEPS)]
    with SummaryWriter(folder) as writer:
        for step in range(25):
            writer.add_scalar("optim/grad_norm", norms[step] + 100.0 * (step >= 20), step)
            if step == 0:
                writer.add_histogram("weights", torch.arange(4.0), step)
        for step in range(20, STEPS):
            writer.add_scalar("optim/grad_norm", norms[step], step, new_style=True)
            writer.add_scalar("train/loss", 1.0 / (step + 1), step, new_style=True)
    (events,) = folder.rglob("*tfevents*")
    shutil.copy(events, HERE / "resumed.tfevents")
    TRUE["tensorboard"] = norms


def mlflow(folder: Path) -> None:
    """MLflow's history of metrics, in the columns of the file that its web page downloads."""
    import mlflow
    import pandas as pd

    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    mlflow.set_tracking_uri((folder / "runs").as_uri())
    norms = [2.0 ** (step % 5) for step in range(STEPS)]
    with mlflow.start_run() as run:
        for step, norm in enumerate(norms):
            mlflow.log_metrics({"grad_norm": norm, "loss": 3.0 / (step + 1)}, step=step)
    client = mlflow.MlflowClient()
    rows = [
        (run.info.run_id, m.key, m.value, m.step, m.timestamp)
        for key in ("loss", "grad_norm")
        for m in client.get_metric_history(run.info.run_id, key)
    ]
    table = pd.DataFrame(rows, columns=["run_id", "key", "value", "step", "timestamp"])
    table.to_csv(HERE / "mlflow.csv", index=False)
    TRUE["mlflow"] = norms


def main() -> None:
    path = HERE / "true.json"
    TRUE.update(json.loads(path.read_text()) if path.exists() else {})
    for make in [transformers, lightning, tensorboard, mlflow]:
        if len(sys.argv) < 2 or make.__name__ in sys.argv:
            with tempfile.TemporaryDirectory() as folder:
                make(Path(folder))
    path.write_text(json.dumps(TRUE) + "\n")


if __name__ == "__main__":
    main()
