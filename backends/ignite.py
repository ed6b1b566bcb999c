"""`GradClip`: a handler for the engines of PyTorch-Ignite."""
# Not installed where types are checked:
# pyright: reportMissingImports=false

from typing import Any

from torch.optim import Optimizer

from gradclip._elsewhere import Needs
from gradclip.backends.torch._in_trainer import InTrainer

with Needs("ignite", "ignite", install="pytorch-ignite"):
    from ignite.engine import Events

__all__ = ["GradClip"]


class GradClip:
    """Clips the gradients of optimizers before each step: ``GradClip(optimizer, max_norm=1.0).attach(trainer)``.

    ``trainer.state.metrics`` gets the numbers of `gradclip.monitor` after each iteration; ``gradclip/clipped`` is the
    share of clipped steps in this epoch. Attach it before the loggers, so that these see the numbers of the same
    iteration. ``Checkpoint({"clip": clip, ...}, ...)`` saves the states of policies.

    Parameters
    ----------
    optimizer : Optimizer or sequence of Optimizer
        As for `gradclip.backends.torch.attach`, but each is clipped by its own norm; then the names of the numbers end
        in the number of the optimizer.
    max_norm : float, 0-d tensor, Policy or None
        As for ``attach``.
    **arguments
        The others of ``attach``; and ``monitor``, a `gradclip.monitor.NormMonitor` that records each step.

    Raises
    ------
    TypeError, ValueError
        As ``attach``.
    """

    def __init__(self, optimizer: Any, max_norm: Any = None, **arguments: Any) -> None:
        self._clip = InTrainer(max_norm, **arguments)
        self._optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
        self._reported: set[str] = set()

    @property
    def clippings(self) -> list[Any]:
        """The handles of ``attach``, one for each optimizer, while it is attached."""
        return self._clip.clippings

    def attach(self, engine: Any) -> "GradClip":
        """Clip from now on, and report in an engine's metrics."""
        self._clip.begin(self._optimizers)
        engine.add_event_handler(Events.EPOCH_STARTED, self._forget)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._report)
        return self

    def detach(self, engine: Any) -> None:
        """Remove the hooks: gradients are no longer clipped, and the engine's metrics no longer get numbers."""
        self._clip.end()
        engine.remove_event_handler(self._forget, Events.EPOCH_STARTED)
        engine.remove_event_handler(self._report, Events.ITERATION_COMPLETED)
        for name in self._reported:
            engine.state.metrics.pop(name, None)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of policies."""
        return self._clip.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self._clip.load_state_dict(state_dict)

    def _forget(self, _: Any) -> None:
        self._clip.reset()

    def _report(self, engine: Any) -> None:
        numbers = self._clip.read()
        self._reported |= set(numbers)
        engine.state.metrics.update(numbers)
