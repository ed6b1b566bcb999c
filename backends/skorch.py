"""`GradClip`: a callback for the nets of skorch."""
# Not installed where types are checked:
# pyright: reportMissingImports=false

from typing import Any

from gradclip._elsewhere import Needs
from gradclip.backends.torch._in_trainer import InTrainer
from gradclip.monitor._row import KEYS

with Needs("skorch", "skorch", install="skorch"):
    from skorch.callbacks import Callback, GradientNormClipping

__all__ = ["GradClip"]


class GradClip(Callback):
    """Clips the gradients of a net before each step: ``NeuralNetClassifier(..., callbacks=[GradClip(max_norm=1.0)])``.

    The history has the numbers of `gradclip.monitor` for each batch. For each epoch it has ``grad_norm``, the mean, and
    ``gradclip/clipped``, the share of clipped batches; ``PrintLog`` prints both. The callback finds optimizers anew at
    each batch, because ``set_params`` may make others. A pickle of the net holds the states of policies.

    Parameters
    ----------
    max_norm, max_value, norm_type, nonfinite, eps, per_group
        As for `gradclip.backends.torch.attach`. They can be searched: ``callbacks__GradClip__max_norm``.
    monitor : NormMonitor or None
        Records each step.

    Raises
    ------
    TypeError, ValueError
        From ``fit``, as ``attach``; ValueError if the net also has a ``GradientNormClipping`` that clips.
    """

    def __init__(
        self,
        max_norm: Any = None,
        max_value: Any = None,
        norm_type: Any = 2.0,
        nonfinite: Any = "propagate",
        eps: float = 0.0,
        per_group: bool = False,
        monitor: Any = None,
    ) -> None:
        self.max_norm, self.max_value, self.norm_type = max_norm, max_value, norm_type
        self.nonfinite, self.eps, self.per_group, self.monitor = nonfinite, eps, per_group, monitor

    def initialize(self) -> "GradClip":
        """Forget the states of policies."""
        self.clip_ = InTrainer(**self.get_params(deep=False))
        return self

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
        """Attach to the optimizers of the net, by the parameters that the callback has now."""
        for name, other in net.callbacks_:
            if isinstance(other, GradientNormClipping) and other.gradient_clip_value is not None:
                raise ValueError(
                    f"the net has the callback {name!r}, which clips to {other.gradient_clip_value}, expected GradClip "
                    "alone, or gradients would be clipped twice; remove the other one"
                )
        before = self.clip_
        before.end()
        self.initialize().clip_.load_state_dict(before.state_dict())
        self._attach(net)

    def on_batch_begin(self, net: Any, batch: Any = None, training: Any = None, **_: Any) -> None:
        """Attach to optimizers that were replaced."""
        if training:
            self._attach(net)

    def on_batch_end(self, net: Any, batch: Any = None, training: Any = None, **_: Any) -> None:
        """Record what was done."""
        for name, value in self.clip_.take().items() if training else ():
            net.history.record_batch(name, value)

    def on_epoch_end(self, net: Any, *_: Any, **__: Any) -> None:
        """Record means over the batches."""
        for name in (KEYS["norm"], KEYS["clipped"]):
            values = [batch[name] for batch in net.history[-1]["batches"] if name in batch]
            if values:
                net.history.record(name, sum(values) / len(values))

    def on_train_end(self, net: Any, *_: Any, **__: Any) -> None:
        """Remove the hooks."""
        self.clip_.end()

    def _attach(self, net: Any) -> None:
        self.clip_.begin([getattr(net, f"{name}_") for name in net._optimizers])
