"""A small model, data of which some batches are bad, and comparisons: for the tests of all trainers."""

import math

import torch
from torch import nn

from gradclip.policies import ZClip

STEPS = 8
BATCH = 4
MAX_NORM = 5.0
POLICY = ZClip(alpha=0.8, z_thresh=1.0, max_norm=1e6, warmup_steps=2)
"""Its thresholds follow the norms from the third step on."""

KEYS = ("grad_norm", "gradclip/coefficient", "gradclip/clipped", "gradclip/max_norm")


class Net(nn.Module):
    """A network whose forward gives the loss, as some trainers want it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 1)

    def forward(self, x, y=None):
        out = self.second(torch.tanh(self.first(x)))
        return out if y is None else {"loss": nn.functional.mse_loss(out.float(), y), "out": out}


def net() -> Net:
    torch.manual_seed(1)
    return Net()


def data(steps: int = STEPS) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of batches of 4; each third batch has targets that make a large gradient."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(steps * BATCH, 3, generator=generator)
    y = x.sum(1, keepdim=True)
    for i in range(2, steps, 3):
        y[i * BATCH : (i + 1) * BATCH] *= 20
    return x, y


def enable_fp16(accelerator, scale: float = 1024.0) -> None:
    """Give Accelerate's Accelerator what ``mixed_precision="fp16"`` gives it on a GPU; on a CPU it is ignored."""
    accelerator.state._mixed_precision = "fp16"
    accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler("cpu", init_scale=scale)


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def assert_same(one: nn.Module, other: nn.Module, relative: float = 1e-6) -> None:
    """Check that two runs gave the same weights, to rounding."""
    assert torch.isfinite(weights(one)).all()
    torch.testing.assert_close(weights(one), weights(other), rtol=relative, atol=relative)


def assert_differ(one: nn.Module, other: nn.Module) -> None:
    assert (weights(one) - weights(other)).abs().max() > 1e-4


def share(norms, max_norm: float = MAX_NORM) -> float:
    """The share of norms that are above the threshold: some are, and some are not."""
    clipped = [norm > max_norm for norm in norms]
    assert 0 < sum(clipped) < len(clipped)
    return sum(clipped) / len(clipped)


def check_log(row: dict, max_norm: float = MAX_NORM) -> None:
    """Check that a row of a log says what was done in one step."""
    assert row["gradclip/clipped"] == (row["grad_norm"] > max_norm)
    assert math.isclose(row["gradclip/coefficient"], min(1, max_norm / row["grad_norm"]), rel_tol=1e-5)
    assert row["gradclip/max_norm"] == max_norm
