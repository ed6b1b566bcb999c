"""`ClippingAccelerator`: Accelerate's Accelerator, which clips by gradclip and adds the norm to what it logs."""
# Not installed where types are checked:
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false

from typing import Any

from gradclip._elsewhere import Needs
from gradclip.backends.torch import Clipper, clip_grad_norm_, clip_grad_value_
from gradclip.backends.torch._in_trainer import StepNumbers
from gradclip.policies._as_policy import is_policy

with Needs("accelerate", "accelerate", install="accelerate"):
    from accelerate import Accelerator

__all__ = ["ClippingAccelerator"]


class ClippingAccelerator(Accelerator):
    """Use it in place of ``Accelerator``: ``clip_grad_norm_`` and ``clip_grad_value_`` are computed by gradclip.

    Both unscale the gradients first, if there is a GradScaler. While gradients accumulate, nothing is clipped, so that
    ``if accelerator.sync_gradients:`` before them is not needed. On DeepSpeed, FSDP1, XLA and Megatron-LM, Accelerate
    clips.

    ``log`` adds the numbers of `gradclip.monitor`; ``gradclip/clipped`` is the share of clipped steps since the last
    log. They are those of all calls of ``clip_grad_norm_``: with several models, or to clip by a policy, use
    ``gradclip.backends.torch.attach`` on what ``prepare`` returns.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seen = StepNumbers()

    def clip_grad_norm_(self, parameters: Any, max_norm: Any, norm_type: Any = 2) -> Any:
        """Clip gradients to a norm, and return the norm that they had.

        Parameters
        ----------
        parameters : Module or iterable of Parameter
            As for `gradclip.backends.torch.clip_grad_norm_`.
        max_norm, norm_type : float
            The threshold, and the order of the norm.

        Raises
        ------
        TypeError, ValueError
            As `gradclip.backends.torch.clip_grad_norm_`; TypeError for a policy.
        """
        if is_policy(max_norm):
            raise TypeError(
                f"max_norm is {max_norm!r}, expected a number, because a policy remembers the norms of one optimizer; "
                "pass it to gradclip.backends.torch.attach(optimizer, ...) after prepare()"
            )
        if self._clips_itself():
            return super().clip_grad_norm_(parameters, max_norm, norm_type=norm_type)
        if not self.sync_gradients:
            scale = 1.0 if self.scaler is None else self.scaler.get_scale()
            return clip_grad_norm_(parameters, None, norm_type) / scale
        self.unscale_gradients()
        clipper = Clipper(max_norm, ord=float(norm_type))
        norm = clipper.clip_(parameters)
        self._seen.observe(clipper)
        return norm

    def clip_grad_value_(self, parameters: Any, clip_value: Any) -> None:
        """Clip each element of gradients to ``[-clip_value, clip_value]``."""
        if self._clips_itself():
            super().clip_grad_value_(parameters, clip_value)
        elif self.sync_gradients:
            self.unscale_gradients()
            clip_grad_value_(parameters, clip_value)

    def clipping_numbers(self) -> dict[str, float]:
        """Return the numbers that the next ``log`` adds, as floats; empty if there was no step since the last."""
        return {name: float(value) for name, value in self._seen.read().items()}

    def log(self, values: dict[str, Any], step: int | None = None, log_kwargs: Any = None) -> None:
        """Log values and what the clipping did."""
        super().log({**self.clipping_numbers(), **values}, step=step, log_kwargs=log_kwargs or {})
        self._seen.reset()

    def _clips_itself(self) -> bool:
        place = str(getattr(self.distributed_type, "value", self.distributed_type))
        return place in {"DEEPSPEED", "XLA", "MEGATRON_LM"} or (place == "FSDP" and not self.is_fsdp2)
