"""Histories that look like those of a training run, and logs of them."""

import json
from pathlib import Path

import numpy as np

from gradclip.monitor import History

NAMES = ("embed.weight", "layers.0.attn.weight", "layers.0.mlp.weight", "head.weight")


def run(steps: int = 600, *, parameters: bool = True) -> History:
    """Return a run with a warm-up, spikes, one NaN and one inf, clipped at 1; a step above 6 is skipped."""
    rng = np.random.default_rng(0)
    step = np.arange(1, steps + 1)
    norm = (0.4 + 3 * np.exp(-step / (steps / 20))) * np.exp(0.2 * rng.standard_normal(steps))
    norm[rng.choice(np.arange(steps // 4, steps), 6, replace=False)] *= 20
    norm[[steps // 2, steps // 2 + 7]] = np.nan, np.inf
    shares = np.sqrt(rng.dirichlet(np.ones(len(NAMES))))
    return History(
        step=step,
        norm=norm,
        max_norm=np.ones(steps),
        coefficient=np.minimum(1, 1 / norm),
        loss=2 + 5 * np.exp(-step / (steps / 6)) + 0.05 * rng.standard_normal(steps),
        clipped=(norm > 1) & ~(norm > 6),
        skipped=~(norm <= 6),
        parameters={name: share * norm for name, share in zip(NAMES, shares, strict=True)} if parameters else {},
    )


def write(history: History, path: Path) -> Path:
    """Write a history as JSON Lines with the keys of the monitor."""
    columns = {"step": history.step, "grad_norm": history.norm, "loss": history.loss}
    for name in ("max_norm", "coefficient", "clipped", "skipped"):
        columns[f"gradclip/{name}"] = getattr(history, name)
    columns |= {f"grad_norm/{name}": values for name, values in history.parameters.items()}
    rows = zip(*(values.tolist() for values in columns.values() if values is not None), strict=True)
    keys = [name for name, values in columns.items() if values is not None]
    path.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows))
    return path
