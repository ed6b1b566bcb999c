"""torch's rows with an optimizer's step: clipping before it, in it, and the step alone."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from benchmarks import frameworks, sets
from benchmarks.exact import relative_error, wide_norm
from benchmarks.row import CLIPPED, UNCLIPPED, Contender, Row, Schedule, Setup
from benchmarks.sets import GradientSet, NDArray

_OURS, _MISSING = frameworks.adapter("torch")
_TINY_RATE = 1e-9
"""The learning rate: so small that parameters do not change, however many steps are measured."""


class Model:
    """Parameters, each in its own memory. Every contender has its own optimizer for them."""

    def __init__(self, leaves: list[NDArray], fused: bool) -> None:
        self._kept = [torch.from_numpy(x) for x in leaves]
        self.parameters = [torch.nn.Parameter(torch.full_like(x, 0.01)) for x in self._kept]
        for parameter, kept in zip(self.parameters, self._kept, strict=True):
            parameter.grad = kept.clone()
        self._fused = fused

    def optimizer(self) -> AdamW:
        """Return a new optimizer of the parameters, with its state in memory."""
        made = AdamW(self.parameters, lr=_TINY_RATE, weight_decay=0.0, fused=self._fused, foreach=not self._fused)
        made.step()
        return made

    def restore(self) -> None:
        """Write the gradients' first values again."""
        for parameter, kept in zip(self.parameters, self._kept, strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(kept)

    def grads(self) -> list[NDArray]:
        """Return the gradients as they are."""
        return [p.grad.numpy() for p in self.parameters if p.grad is not None]


def clip_and_step(gradients: GradientSet, case: str, *, fused: bool) -> Row:
    """Return the row of clipping by global norm and a step of AdamW."""

    def build(chosen: GradientSet) -> Setup:
        model = Model(sets.values(chosen, "float32"), fused)
        norm = wide_norm(model.grads())
        most = norm / 2 if case == CLIPPED else norm * 10
        ours: Any = _OURS
        contenders = [
            Contender("attach", "ours", _attached(ours.attach, model.optimizer(), most)),
            Contender("torch.nn.utils.clip_grad_norm_, then step", "peer", _before(clip_grad_norm_, model)),
            Contender("gradclip's clip_grad_norm_, then step", "peer", _before(ours.clip_grad_norm_, model)),
            Contender("the step alone", "floor", _alone(model.optimizer())),
        ]

        def check(got: Tensor, _: float) -> Mapping[str, float]:
            after = relative_error(wide_norm(model.grads()), min(norm, most))
            return {"norm": relative_error(float(got), norm), "result": after}

        return Setup(contenders, Schedule(most), check, model.restore)

    operation = f"clip + {'fused ' if fused else ''}AdamW"
    return Row("torch", operation, gradients, "float32", case, build, (1, 0), missing=_MISSING)


def rows() -> Iterable[Row]:
    """Return the rows. A sample of a small model is many steps, of which only the first would be clipped."""
    for case in (UNCLIPPED, CLIPPED):
        yield clip_and_step(sets.GPT2_SMALL, case, fused=True)
    yield clip_and_step(sets.GPT2_SMALL, CLIPPED, fused=False)
    yield clip_and_step(sets.MLP, UNCLIPPED, fused=True)


def _attached(attach: Callable[..., Any], optimizer: AdamW, most: float) -> Callable[[float], Tensor]:
    clipping = attach(optimizer, max_norm=most)

    def call(_: float) -> Tensor:
        optimizer.step()
        norm: Tensor = clipping.norm
        return norm

    return call


def _before(clip: Callable[..., Tensor], model: Model) -> Callable[[float], Tensor]:
    optimizer = model.optimizer()

    def call(most: float) -> Tensor:
        norm = clip(model.parameters, most)
        optimizer.step()
        return norm

    return call


def _alone(optimizer: AdamW) -> Callable[[float], None]:
    return lambda _: optimizer.step()
