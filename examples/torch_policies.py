"""An experiment: six ways to choose the threshold
===============================================

An experiment: one small transformer, bad batches in its data, and six ways to choose the threshold.

``python examples/torch_policies.py`` trains it with each policy and several seeds, prints a table, and draws
``policies.png``. It runs offline; 30 runs take 11 to 15 minutes on two cores.

The bad batches are of a kind that real data has: a part of a file that is padding, one character again and again. The
loss of such a batch is small or very large, and its gradient up to 40 times as long as usual. Everything else is the
same in all runs of a seed: the weights at the start, the order of the data, the optimizer and its learning rate.
"""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch_char_transformer import LENGTH, TEXT, Transformer

from gradclip import policies
from gradclip.backends.torch import attach

STEPS, ROWS, WARMUP = 850, 16, 50
BAD_EVERY, BAD_LENGTH = 100, 2
"""From step 198 on, in each 100 steps, the last 2 batches are padding. The run ends 50 steps after the last of them."""

POLICIES: dict[str, Any] = {
    "none": None,
    "Fixed(0.5)": policies.Fixed(0.5),
    "AutoClip()": policies.AutoClip(),
    "ZClip()": policies.ZClip(),
    "AdaGC()": policies.AdaGC(),
    "SkipStep()": policies.SkipStep(),
}
COLOURS = ("#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00")
"""One for each policy, from the palette of Okabe and Ito, which colour-blind readers can distinguish."""
SMOOTHED = 40
"""The number of good steps over which the figure averages a loss."""


class Run(NamedTuple):
    """What one run recorded, one value a step; ``held_out`` is the loss at the end, on text that is not trained on."""

    policy: str
    seed: int
    losses: list[float]
    norms: list[float]
    changed: list[bool]
    held_out: float


def train(policy: str, seed: int, steps: int = STEPS) -> Run:
    """Train a transformer under a policy."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data = torch.Generator().manual_seed(seed)
    characters = sorted(set(TEXT))
    codes = torch.tensor([characters.index(c) for c in TEXT[:200_000]])
    train_codes, held_out = codes[:-20_000], codes[-20_000:]
    model = Transformer(len(characters))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
    clipping = attach(optimizer, POLICIES[policy])
    run = Run(policy, seed, [], [], [], 0.0)
    for step in range(steps):
        rows = _rows(train_codes, step, len(characters), data)
        loss = _loss(model, rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        run.losses.append(loss.item())
        run.norms.append(clipping.norm.item())
        run.changed.append(bool(clipping.clipped | clipping.skipped))
    with torch.no_grad():
        rows = held_out[: 64 * (LENGTH + 1)].view(64, LENGTH + 1)
        return run._replace(held_out=_loss(model, rows).item())


def is_bad(step: int) -> bool:
    """Whether the batch of this step is padding."""
    return step >= 2 * BAD_EVERY - BAD_LENGTH and step % BAD_EVERY >= BAD_EVERY - BAD_LENGTH


def _rows(codes: Tensor, step: int, vocabulary: int, data: torch.Generator) -> Tensor:
    """Return the batch of a step, of shape (rows, LENGTH + 1)."""
    starts = torch.randint(len(codes) - LENGTH - 1, (ROWS,), generator=data)
    padding = torch.randint(vocabulary, (1,), generator=data)
    if is_bad(step):
        return padding.expand(ROWS, LENGTH + 1)
    return torch.stack([codes[start : start + LENGTH + 1] for start in starts.tolist()])


def _loss(model: nn.Module, rows: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def _good_steps(steps: int) -> list[int]:
    return [step for step in range(steps) if not is_bad(step)]


def _smooth(losses: Sequence[float]) -> Any:
    """Return the mean of the last losses of good batches, for each good step."""
    good = np.asarray(losses)[_good_steps(len(losses))]
    sums = np.cumsum(good)
    counts = np.minimum(np.arange(len(good)) + 1, SMOOTHED)
    return (sums - np.concatenate([np.zeros(SMOOTHED), sums])[: len(sums)]) / counts


def _row(policy: str, runs: Sequence[Run]) -> str:
    """Return a line of the table: means over the seeds, with the least and the largest."""
    held_out = [run.held_out for run in runs]
    changed = np.array([run.changed for run in runs])
    bad = np.array([is_bad(step) for step in range(changed.shape[1])])
    loss = f"{np.mean(held_out):.3f} ({min(held_out):.3f} to {max(held_out):.3f})"
    return f"{policy:<12} {loss:>28} {changed[:, ~bad].mean():>20.1%} {changed[:, bad].mean():>19.1%}"


def save_figure(path: Path, runs: Sequence[Run]) -> None:
    """Draw the loss of each policy, the median of its seeds, and the norms of the run that is not clipped."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {"font.size": 9, "axes.spines.right": False, "axes.spines.top": False, "legend.frameon": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(7.0, 5.2), layout="constrained")
        losses, norms = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for policy, colour in zip(POLICIES, COLOURS, strict=True):
            of_policy = [run for run in runs if run.policy == policy]
            middle = np.median([_smooth(run.losses) for run in of_policy], axis=0)
            losses.plot(_good_steps(len(of_policy[0].losses)), middle, color=colour, linewidth=1.3, label=policy)
        unclipped = [run.norms for run in runs if run.policy == "none"]
        norms.plot(np.median(unclipped, axis=0), color=COLOURS[0], linewidth=0.8)
        norms.set(yscale="log", xlabel="training step", ylabel="gradient norm\n(none)", xlim=(0, len(unclipped[0])))
        losses.set(ylabel="training loss (nats a character)\nof good batches, smoothed", ylim=(1.4, 3.0))
        figure.legend(*losses.get_legend_handles_labels(), ncols=6, loc="outside upper center", columnspacing=1.2)
        figure.align_ylabels()
        figure.savefig(path, dpi=200)


def main() -> None:
    """Run the experiment and print its table."""
    parser = argparse.ArgumentParser(description="Compare policies on data with bad batches.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=Path("policies.png"))
    options = parser.parse_args()
    jobs = [(policy, seed, options.steps) for seed in range(options.seeds) for policy in POLICIES]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        runs = list(pool.map(train, *zip(*jobs, strict=True)))
    print(f"{'policy':<12} {'loss on held-out text':>28} {'good steps changed':>20} {'bad steps changed':>19}")
    for policy in POLICIES:
        print(_row(policy, [run for run in runs if run.policy == policy]))
    save_figure(options.out, runs)
    print(f"drawn in {options.out}")


if __name__ == "__main__":
    main()
