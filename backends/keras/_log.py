"""`ClipLog`: the norm and the share of clipped steps in Keras's own logs."""

from typing import Any

import keras

from gradclip._words import kind
from gradclip.backends.keras._optimizer import ClippingOptimizer
from gradclip.monitor import NormMonitor


class ClipLog(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no annotations
    """Adds the norm and the share of clipped steps to Keras's logs at the end of each epoch.

    The keys are ``grad_norm``, of the epoch's last step before clipping, and ``clipped``, the share of the epoch's
    steps; with a policy that skips steps also ``skipped``. Put it before callbacks that write logs, such as CSVLogger.

    Parameters
    ----------
    monitor : NormMonitor, optional
        Records every step. In JAX, Keras copies its variables at each step for this.
    """

    def __init__(self, monitor: NormMonitor | None = None) -> None:
        super().__init__()
        self.monitor = monitor
        if monitor is None:  # Keras waits for the device at each step for callbacks that have this method
            self.on_train_batch_end: Any = super().on_train_batch_end
        else:
            self.on_train_batch_end = self._record

    @property
    def optimizer(self) -> Any:
        """The clipped optimizer, also if a LossScaleOptimizer wraps it."""
        found = self.model.optimizer
        found = getattr(found, "inner_optimizer", found)
        if not isinstance(found, ClippingOptimizer):
            raise TypeError(
                f"the model's optimizer is {kind(found)}, expected one of clipped(); compile the model with "
                f"clipped(keras.optimizers.{type(found).__name__})(max_norm=...)"
            )
        return found

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002  # Keras's name
        """Check the optimizer."""
        self._at = self._counts()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002  # Keras's name
        """Remember the counts before the epoch."""
        self._before = self._counts()

    def _record(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002  # Keras's names
        """Record a step; a batch that was only accumulated is none."""
        counts, found = self._counts(), self.optimizer
        if self.monitor is not None and counts != self._at:
            self.monitor.record(
                float(found.grad_norm),
                coefficient=float(found.clip_coefficient),
                clipped=counts[1] > self._at[1],
                skipped=counts[2] > self._at[2],
            )
        self._at = counts

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002  # Keras's name
        """Add the norm and the shares to the logs."""
        steps, changed, skipped = (now - before for now, before in zip(self._counts(), self._before, strict=True))
        if logs is not None:
            logs["grad_norm"] = float(self.optimizer.grad_norm)
            logs["clipped"] = changed / max(1, steps + skipped)
            if self.optimizer._policy is not None and self.optimizer._policy.skips:
                logs["skipped"] = skipped / max(1, steps + skipped)

    def _counts(self) -> tuple[int, int, int]:
        """Return the number of steps taken, clipped and skipped."""
        found = self.optimizer
        counts = found.iterations, found.clipped_steps, found.skipped_steps
        taken, changed, skipped = (0 if x is None else int(x) for x in counts)
        return taken, changed, skipped
