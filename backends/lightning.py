"""`GradClip`: a callback for the Trainer of Lightning, also where it is installed as ``pytorch_lightning``."""
# Not installed where types are checked:
# pyright: reportMissingImports=false

from importlib.util import find_spec
from typing import Any

from gradclip._elsewhere import Needs
from gradclip.backends.torch._in_trainer import InTrainer
from gradclip.monitor._row import KEYS

with Needs("lightning", "lightning", "pytorch_lightning", install="lightning"):
    if find_spec("lightning") is None and find_spec("pytorch_lightning") is not None:
        from pytorch_lightning import Callback
    else:
        from lightning.pytorch import Callback

__all__ = ["GradClip"]


class GradClip(Callback):
    """Clips the gradients of each optimizer before its steps: ``Trainer(callbacks=[GradClip(max_norm=1.0)])``.

    It works with fused optimizers in ``16-mixed`` precision too, which Lightning's own clipping refuses, and with
    manual optimization. The numbers of `gradclip.monitor` are logged at each step, and ``gradclip/clipped_epoch``, the
    share of clipped steps, at the end of an epoch. If there are several optimizers, each is clipped by its own norm,
    and the names of its numbers end in its number. Checkpoints hold the states of policies.

    With Fabric, call ``gradclip.backends.torch.attach`` on what ``fabric.setup`` returned.

    Parameters
    ----------
    max_norm : float, 0-d tensor, Policy or None
        As for `gradclip.backends.torch.attach`.
    **arguments
        The others of ``attach``; and ``monitor``, a `gradclip.monitor.NormMonitor` that records each step.

    Raises
    ------
    TypeError, ValueError
        As ``attach``. ValueError when the Trainer starts, if it has ``gradient_clip_val`` or runs on DeepSpeed or
        FSDP1.
    """

    def __init__(self, max_norm: Any = None, **arguments: Any) -> None:
        self._clip = InTrainer(max_norm, **arguments)

    @property
    def clippings(self) -> list[Any]:
        """The handles of ``attach``, one for each optimizer, while the Trainer trains."""
        return self._clip.clippings

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Check that the Trainer does not clip."""
        if stage != "fit":
            return
        if trainer.gradient_clip_val:
            raise ValueError(
                f"Trainer has gradient_clip_val={trainer.gradient_clip_val}, expected None with the callback GradClip, "
                "or gradients would be clipped twice; pass the threshold to GradClip alone"
            )
        self._clip.check_place(trainer.strategy)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach to the optimizers."""
        self._clip.begin(trainer.optimizers)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Attach to optimizers that were replaced."""
        self._clip.begin(trainer.optimizers)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log what was done, if there was a step."""
        for name, value in self._clip.read().items():
            pl_module.log(name, value, on_step=True, on_epoch=name.startswith(KEYS["clipped"]), batch_size=1)
        self._clip.reset()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Remove the hooks."""
        self._clip.end()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of policies."""
        return self._clip.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self._clip.load_state_dict(state_dict)
