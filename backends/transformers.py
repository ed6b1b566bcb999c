"""`GradClipCallback` for the Trainer of Hugging Face Transformers, and for TRL's, which are built on it."""
# Not installed where types are checked:
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false

from typing import Any

from gradclip._elsewhere import Needs
from gradclip.backends.torch._in_trainer import InTrainer

with Needs("transformers", "transformers", "accelerate", install='"transformers[torch]"'):
    from transformers import TrainerCallback
    from transformers.trainer_callback import ExportableState

__all__ = ["GradClipCallback"]


class GradClipCallback(TrainerCallback, ExportableState):
    """Clips the gradients before each step: ``Trainer(..., callbacks=[GradClipCallback(max_norm=1.0)])``.

    ``TrainingArguments(max_grad_norm=0)`` turns off the Trainer's own clipping. ``log_history`` gets the numbers of
    `gradclip.monitor`; ``gradclip/clipped`` is the share of clipped steps since the last log. Checkpoints hold the
    state of a policy, and ``resume_from_checkpoint`` restores it.

    Parameters
    ----------
    max_norm : float, 0-d tensor, Policy or None
        As for `gradclip.backends.torch.attach`.
    **arguments
        The others of ``attach``; and ``monitor``, a `gradclip.monitor.NormMonitor` that records each step.

    Raises
    ------
    TypeError, ValueError
        As ``attach``. ValueError when the Trainer is made or starts, if it clips too or runs on DeepSpeed or FSDP1.
    """

    def __init__(self, max_norm: Any = None, **arguments: Any) -> None:
        self._clip = InTrainer(max_norm, **arguments)
        self._given, self.lost = {"max_norm": max_norm, **arguments}, ""

    @property
    def clipping(self) -> Any:
        """The handle of ``attach`` while the Trainer trains; else None."""
        return next(iter(self._clip.clippings), None)

    def add_to(self, trainer: Any) -> "GradClipCallback":
        """Add it before all other callbacks, so that those of TensorBoard, W&B and so on get the numbers."""
        trainer.callback_handler.callbacks.insert(0, self)
        return self

    def on_init_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Check that the Trainer does not clip."""
        if args.max_grad_norm:
            raise ValueError(
                f"TrainingArguments has max_grad_norm={args.max_grad_norm}, expected 0 with GradClipCallback, or "
                "gradients would be clipped twice; pass max_grad_norm=0 there, and max_norm to the callback"
            )

    def on_train_begin(self, args: Any, state: Any, control: Any, *, optimizer: Any = None, **_: Any) -> None:
        """Attach to the optimizer."""
        self.on_init_end(args, state, control)
        self._clip.check_place(getattr(optimizer, "accelerator_state", None))
        if self.lost:
            raise ValueError(
                f"restore_callback_states_from_checkpoint=True made a callback without {self.lost}, which a checkpoint "
                "cannot hold; leave it False: GradClipCallback restores the states of policies without it"
            )
        kept = (state.stateful_callbacks or {}).get(type(self).__name__, {})
        self.saved = kept.get("attributes", {}).get("saved", self.saved)
        self._clip.begin([optimizer])

    def on_log(self, args: Any, state: Any, control: Any, *, logs: Any = None, **_: Any) -> None:
        """Add the numbers to what the Trainer logs of steps."""
        if "loss" in (logs or {}) and (numbers := self._clip.take()):
            logs.update(numbers)
            state.log_history[-1].update(numbers)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remove the hooks."""
        self._clip.end()

    saved = property(lambda self: self._clip.state_dict(), lambda self, value: self._clip.load_state_dict(value))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of this callback."""
        plain = {n: x for n, x in self._given.items() if isinstance(x, str | float | int | None)}
        lost = ", ".join(f"{n}={x!r}" for n, x in self._given.items() if n not in plain)
        return {"args": plain, "attributes": {"saved": self.saved, "lost": lost}}
