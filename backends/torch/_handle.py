"""The handle that `attach` returns: its threshold, the results of the last step, and ``remove()``."""

import math
import warnings
import weakref
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradclip import _checks
from gradclip._decision import Rule
from gradclip._types import AnyScalar, Nonfinite
from gradclip.backends.torch import _optimizers
from gradclip.backends.torch._arguments import norm_order
from gradclip.backends.torch._compiled_step import clip_groups_compiled_
from gradclip.backends.torch._leaves import gradients
from gradclip.backends.torch._step import Told, clip_scopes_, together


class Clipping:
    """What `attach` returns: the clipping of an optimizer, until it is removed.

    It can be pickled and copied. The copy keeps the threshold and the results of the last step, but is attached to no
    optimizer, because copies of an optimizer have no hooks; a warning says so. Attach to the copy of the optimizer.

    Attributes
    ----------
    max_norm : float, 0-d tensor or None
        The threshold. Set it to change it: ``clipping.max_norm = schedule(step)``. A tensor is read at each step.
    max_value : float, 0-d tensor or None
        The bound of each element. It can be set and read in the same way.
    norm : Tensor or None
        The unscaled norm before the last step's clipping: 0-d, on the gradients' device, float64 if a gradient is
        float64 or complex128, else float32. With ``per_group``, its shape is (number of groups,). None before the first
        step.
    coefficient : Tensor or None
        What the gradients were multiplied by: 1 if they were not clipped, 0 if they were made zero. Shape and dtype are
        those of ``norm``.
    clipped : Tensor or None
        Whether they were clipped: boolean, of the shape of ``norm``.
    """

    __slots__ = (
        "__weakref__", "_eps", "_hook", "_max_norm", "_max_value", "_nonfinite", "_norm_type", "_optimizer",
        "_per_group", "clipped", "coefficient", "norm",
    )  # fmt: skip

    def __init__(
        self,
        max_norm: AnyScalar | None,
        max_value: AnyScalar | None,
        norm_type: float | str,
        nonfinite: Nonfinite,
        eps: AnyScalar,
        per_group: bool,
    ) -> None:
        self.norm: Tensor | None = None
        self.coefficient: Tensor | None = None
        self.clipped: Tensor | None = None
        self.max_norm, self.max_value = max_norm, max_value
        self._norm_type = norm_order(norm_type)
        self._nonfinite: Nonfinite = _checks.policy(nonfinite)
        self._eps = _checks.not_negative(eps, "eps")
        self._per_group = bool(per_group)
        self._optimizer: weakref.ref[Optimizer] | None = None
        self._hook: Any = None

    @property
    def max_norm(self) -> AnyScalar | None:
        """The threshold."""
        return self._max_norm

    @max_norm.setter
    def max_norm(self, value: AnyScalar | None) -> None:
        self._max_norm = _checks.live_threshold(value, "max_norm")

    @property
    def max_value(self) -> AnyScalar | None:
        """The bound of each element."""
        return self._max_value

    @max_value.setter
    def max_value(self, value: AnyScalar | None) -> None:
        self._max_value = _checks.live_threshold(value, "max_value")

    def attached_to(self, optimizer: object) -> bool:
        """Return whether this handle clips an optimizer's steps: False for a copy of it, and after ``remove()``.

        Parameters
        ----------
        optimizer : Optimizer
            An optimizer, or a wrapper of one that `attach` takes.
        """
        try:
            return self in clippings_of(_optimizers.hooked(optimizer))
        except TypeError:
            return False

    def remove(self) -> None:
        """Remove the hook; the optimizer is no longer clipped. A second call does nothing."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._optimizer = None

    def begin(self, optimizer: Optimizer) -> None:
        """Register the hook that clips before each step of an optimizer."""
        self._hook = optimizer.register_step_pre_hook(self._before)
        self._optimizer = weakref.ref(optimizer)

    def __repr__(self) -> str:
        limits = [f"max_norm={self.max_norm!r}"]
        if self.max_value is not None:
            limits.append(f"max_value={self.max_value!r}")
        optimizer = self._optimizer() if self._optimizer else None
        where = f"attached to {type(optimizer).__name__}" if optimizer is not None else "attached to no optimizer"
        last = [f"{name}={_shown(getattr(self, name))}" for name in Told._fields]
        done = f"last step: {', '.join(last)}" if self.norm is not None else "no step yet"
        return f"Clipping({', '.join(limits)}, {where}; {done})"

    def __getstate__(self) -> dict[str, Any]:
        kept = {
            name: getattr(self, name) for name in self.__slots__ if name not in {"__weakref__", "_hook", "_optimizer"}
        }
        return {**kept, "was_attached": self._hook is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if name != "was_attached":
                setattr(self, name, value)
        self._hook = self._optimizer = None
        if state["was_attached"]:
            message = (
                "a copy of a Clipping is attached to no optimizer, and copies of an optimizer have no hooks: "
                "call attach(optimizer, ...) to clip the steps of the copy"
            )
            warnings.warn(message, UserWarning, stacklevel=3)

    def _before(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if kwargs.get("grad_scaler") is not None:
            raise TypeError(
                f"{type(optimizer).__name__}.step() takes the GradScaler itself, so that attach() cannot know whether "
                "the gradients are scaled, expected an optimizer that reads grad_scale; in place of attach(), call "
                "scaler.unscale_(optimizer) and clip_grad_norm_() before scaler.step(optimizer)"
            )
        if _is_repeated(optimizer):
            return None
        rest = args[1:]  # the first is the optimizer
        if not any(map(callable, (*rest, *kwargs.values()))):
            self._clip(optimizer)
            return None
        given = [self._after(x, optimizer) if callable(x) else x for x in rest]
        named = {name: self._after(x, optimizer) if callable(x) else x for name, x in kwargs.items()}
        return (*args[:1], *given), named

    def _after(self, given: Callable[..., Any], optimizer: Optimizer) -> Callable[..., Any]:
        """Return a closure that calls the given one, then clips. The step may call it several times."""

        def closure(*args: Any, **kwargs: Any) -> Any:
            loss = given(*args, **kwargs)
            self._clip(optimizer)
            return loss

        return closure

    def _clip(self, optimizer: Optimizer) -> None:
        if torch.compiler.is_compiling():
            self._clip_compiled(optimizer)
        else:
            self._clip_now(optimizer)

    def _clip_compiled(self, optimizer: Optimizer) -> None:
        """Clip as one operation of the graph; break the graph for NumPy's thresholds and a GradScaler's fused steps."""
        plain = all(x is None or isinstance(x, float | Tensor) for x in (self._max_norm, self._max_value))
        if not plain or _optimizers.has_scaler(optimizer):
            cast("Any", torch.compiler.disable(self._clip_now))(optimizer)
            return
        self.norm, self.coefficient, self.clipped = clip_groups_compiled_(
            optimizer.param_groups,
            self._max_norm, self._max_value, self._eps, self._norm_type, self._nonfinite, self._per_group,
        )  # fmt: skip

    @torch.no_grad()
    def _clip_now(self, optimizer: Optimizer) -> None:
        skipped = _optimizers.skipped(optimizer)
        if skipped is True or (self._nonfinite == "error" and bool(skipped)):
            return
        told = self._clipped(optimizer.param_groups, _optimizers.loss_scale(optimizer))
        if isinstance(skipped, Tensor):
            told = self._unless(skipped, told)
        self.norm, self.coefficient, self.clipped = told

    def _clipped(self, groups: list[dict[str, Any]], loss_scale: AnyScalar) -> Told:
        """Clip the gradients of param groups, and return what was done."""
        limit, bound = _checks.threshold(self._max_norm, "max_norm"), _checks.threshold(self._max_value, "max_value")
        if not self._per_group:
            params = [p for group in groups for p in group["params"]]
            scopes = [gradients(params, "optimizer's parameters")]
        else:
            scopes = [gradients(list(g["params"]), f"optimizer's param_groups[{i}]") for i, g in enumerate(groups)]
        limit, bound = (None if x is None else x * loss_scale for x in (limit, bound))
        rule = Rule(limit, self._norm_type, self._nonfinite, 1.0, self._eps * loss_scale)
        told_of_each = clip_scopes_(scopes, rule, bound, loss_scale)
        return together(told_of_each) if self._per_group else told_of_each[0]

    def _unless(self, skipped: Tensor, told: Told) -> Told:
        """Return the results of the step before if this step is skipped on the device, else those of this step."""
        norm, coefficient, clipped = self.norm, self.coefficient, self.clipped
        if norm is None or coefficient is None or clipped is None or norm.shape != told.norm.shape:
            before = Told(told.norm * math.nan, torch.ones_like(told.norm), torch.zeros_like(told.clipped))
        else:
            before = Told(norm, coefficient, clipped)
        return Told(*(torch.where(skipped.to(y.device), x.to(y), y) for x, y in zip(before, told, strict=True)))


def _is_repeated(optimizer: Optimizer) -> bool:
    """Whether the hooks ran already for this step. In a compiled graph, False: it has no stack frames to find out."""
    return not torch.compiler.is_compiling() and _optimizers.is_within_its_step(optimizer)


def clippings_of(optimizer: Optimizer) -> list[Clipping]:
    """Return the handles whose hooks are registered with an optimizer."""
    owners = [getattr(hook, "__self__", None) for hook in _optimizers.pre_hooks(optimizer)]
    return [owner for owner in owners if isinstance(owner, Clipping)]


def _shown(value: object) -> str:
    """Return a number, or numbers, with 4 digits. The host waits for a tensor on a device."""
    if isinstance(value, Tensor):
        value = "unknown" if value.is_meta else value.tolist()
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
