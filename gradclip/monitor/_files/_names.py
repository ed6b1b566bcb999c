"""Which column of a log holds what: the names that trainers and loggers use."""

import re
from typing import Final

__all__ = ["NORM_NAMES", "PARAMETER", "role_of"]

NORM_NAMES: Final = (
    "grad_norm",  # this library, Transformers, torchtitan, Lightning by hand
    "grad_2.0_norm_total",  # lightning.pytorch.utilities.grad_norm
    "total_grad_norm",  # OLMo
    "global_grad_norm",
    "gradient_norm",
    "grad_norm_total",
    "global_norm",
    "gnorm",  # fairseq
    "gradnorm",
)
"""Names of a gradient norm before clipping, the most usual first. A path may precede the name: ``train/grad_norm``."""

STEP_NAMES: Final = ("step", "global_step", "_step", "iteration", "iter", "num_updates", "batch")
LOSS_NAMES: Final = ("loss", "train_loss", "training_loss", "loss_train", "train_loss_step", "lm_loss", "total_loss")
OTHER_NAMES: Final = {
    "gradclip/max_norm": "max_norm",
    "gradclip/coefficient": "coefficient",
    "gradclip/clipped": "clipped",
    "gradclip/clipped_step": "clipped",  # beside gradclip/clipped_epoch, from Lightning
    "gradclip/skipped": "skipped",
}
"""Names that gradclip writes. A path may precede them: TensorBoard gets ``train/gradclip/clipped`` of Transformers."""

PARAMETER: Final = "parameter:"
"""Before the name of a parameter, in the role of a column that holds the norm of that parameter."""

_RANKS: Final = {
    name: (role, rank)
    for role, names in (("norm", NORM_NAMES), ("step", STEP_NAMES), ("loss", LOSS_NAMES))
    for rank, name in enumerate(names)
}
_GRADCLIP: Final = re.compile(r"(?:(.*)/)?(gradclip/.+)")
_PARAMETER_COLUMN: Final = re.compile(r"(?:.*/)?grad_(?:(?:[\d.]+|inf)_)?norm/(.+)")
_NOT_TRAINING: Final = re.compile(r"(?:eval|val|valid|validation|test)(?:[/_].*)?", re.IGNORECASE)
_EXTREMES: Final = ("__MIN", "__MAX")
"""Suffixes of the columns that W&B's export adds beside each column."""


def role_of(column: str) -> tuple[str, int] | None:
    """Return what a column holds, and how usual its name is (0 is the most usual); None if it holds nothing of use.

    What it holds is a field of `History`: "step", "norm", "loss", "max_norm", "coefficient", "clipped", "skipped"; or
    `PARAMETER` and the name of a parameter.
    """
    if column.endswith(_EXTREMES):
        return None
    name = column.rpartition(" - ")[2]  # W&B's export: "run-name - grad_norm"
    if match := _GRADCLIP.fullmatch(name):
        role = OTHER_NAMES.get(match[2])
        return None if role is None or _NOT_TRAINING.fullmatch(match[1] or "-") else (role, 0)
    if match := _PARAMETER_COLUMN.fullmatch(name):
        return PARAMETER + match[1], 0
    path, _, last = name.rpartition("/")
    if _NOT_TRAINING.fullmatch(path or "-"):
        return None
    return _RANKS.get(re.sub(r"[-\s]+", "_", last.strip().lower()))
