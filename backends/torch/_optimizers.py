"""Attributes of optimizers that `attach` reads: their hooks, and what ``torch.amp.GradScaler`` sets for a step."""

import sys
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from gradclip._types import AnyScalar
from gradclip._words import kind

_SHOWN = ("optimizer", "base_optimizer")
"""Names of properties by which wrappers give the optimizer that they wrap."""


def hooked(optimizer: object) -> Optimizer:
    """Return the optimizer whose ``step`` runs the hooks: this one, or the one that it wraps.

    A wrapper is an Optimizer that never called ``Optimizer.__init__``: hooks can be registered with it, but its own
    ``step`` does not run them. The optimizer that it wraps has all of its parameters. A public attribute holds it, or a
    private one if both share their hooks.

    Raises
    ------
    TypeError
        If ``optimizer`` is no Optimizer, or neither it nor an optimizer that it wraps runs hooks.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer is {kind(optimizer)}, expected a torch.optim.Optimizer{_hint(optimizer)}; "
            "pass the optimizer itself, or call clip_grad_norm_() before its step"
        )
    for found in wrapped_in(optimizer):
        inner = _wrapped(found)
        if runs_hooks(found) and (inner is None or _hooks_of(inner) is not _hooks_of(found)):
            return found
    raise TypeError(
        f"optimizer is {kind(optimizer)} whose step() runs no hooks, as it never called Optimizer.__init__(), so that "
        "attach() could not clip before it; expected an optimizer whose step() does. Attach to the optimizer that it "
        f"wraps{_hint(optimizer)}, or call clip_grad_norm_() before its step"
    )


def wrapped_in(optimizer: Optimizer) -> Iterator[Optimizer]:
    """Yield an optimizer, the optimizer that it wraps, and so on."""
    seen: list[Optimizer] = []
    found: Optimizer | None = optimizer
    while found is not None and all(found is not other for other in seen):
        yield found
        seen.append(found)
        found = _wrapped(found)


def is_within_its_step(optimizer: Optimizer) -> bool:
    """Whether the step that runs these hooks was called within a step that ran them already.

    PyTorch wraps the ``step`` of every class that calls ``Optimizer.__init__``. So hooks run twice if a ``step`` calls
    that of its parent class, or if a wrapper shares the hooks of the optimizer that it wraps.
    """
    frame = sys._getframe(3)  # PyTorch's function; it called the hook, which called `_is_repeated`, which called this
    code, outer, hooks = frame.f_code, frame.f_back, _hooks_of(optimizer)
    while outer is not None:
        if outer.f_code is code and _hooks_of(outer.f_locals.get("self")) is hooks:
            return True
        outer = outer.f_back
    return False


def runs_hooks(optimizer: Optimizer) -> bool:
    """Whether an optimizer's ``step`` runs the hooks that are registered with it."""
    return bool(getattr(type(optimizer).step, "hooked", False)) and _hooks_of(optimizer) is not None


def has_hook(optimizer: Optimizer, hook: object) -> bool:
    """Whether a hook is registered to run before an optimizer's steps."""
    return any(hook == other for other in (_hooks_of(optimizer) or {}).values())


def pre_hooks(optimizer: Optimizer) -> list[Any]:
    """Return the hooks that run before an optimizer's steps."""
    return list((_hooks_of(optimizer) or {}).values())


def loss_scale(optimizer: Optimizer, *, alone: bool = True) -> AnyScalar:
    """Return what the step is going to divide the gradients by: a float on a host, else a 0-d tensor.

    ``GradScaler`` sets ``grad_scale`` for a fused step, which divides the gradients itself. Without it, 1 is returned.

    Raises
    ------
    RuntimeError
        If the gradients are scaled, and not ``alone``: others share their norm, and it is not known whether these are
        scaled too.
    """
    scale: Any = getattr(optimizer, "grad_scale", None)
    if scale is None:
        return 1.0
    if not alone:
        raise RuntimeError(
            f"gradients of {type(optimizer).__name__} are still multiplied by the loss scale of a GradScaler, "
            "expected unscaled ones, because one norm over several was asked for; call scaler.unscale_(optimizer) "
            "for each optimizer before the first step"
        )
    if isinstance(scale, Tensor) and scale.device.type != "cpu":
        return scale.reshape(())
    return float(scale)


def has_scaler(optimizer: Optimizer) -> bool:
    """Whether ``GradScaler`` set ``grad_scale`` or ``found_inf`` for the step."""
    return any(getattr(optimizer, name, None) is not None for name in ("grad_scale", "found_inf"))


def skipped(optimizer: Optimizer) -> bool | Tensor:
    """Return whether the step will do nothing: a bool on a host, else a 0-d boolean tensor.

    ``GradScaler`` sets ``found_inf`` for a fused step. It calls the step even if gradients overflowed.
    """
    found: Any = getattr(optimizer, "found_inf", None)
    if found is None:
        return False
    if isinstance(found, Tensor) and found.device.type != "cpu":
        return found.reshape(()) > 0
    return float(found) > 0


def _hooks_of(optimizer: object) -> dict[int, Any] | None:
    return getattr(optimizer, "_optimizer_step_pre_hooks", None)


def _wrapped(optimizer: Optimizer) -> Optimizer | None:
    """Return the one optimizer that an optimizer wraps, or None."""
    hooks = _hooks_of(optimizer)
    held = _held(optimizer)
    found = [o for name, o in held.items() if name[0] != "_" or (hooks is not None and _hooks_of(o) is hooks)]
    distinct = list({id(o): o for o in found}.values())
    return distinct[0] if len(distinct) == 1 and _params(optimizer) <= _params(distinct[0]) else None


def _held(holder: object) -> dict[str, Optimizer]:
    """Return the optimizers in an object's attributes and in the properties named in `_SHOWN`."""
    values = {**{name: getattr(holder, name, None) for name in _SHOWN}, **getattr(holder, "__dict__", {})}
    return {name: value for name, value in values.items() if isinstance(value, Optimizer)}


def _params(optimizer: Optimizer) -> set[int]:
    groups = getattr(optimizer, "param_groups", [])
    return {id(p) for group in groups for p in group["params"]}


def _hint(holder: object) -> str:
    """Return a hint for messages: the attribute that holds the object's one optimizer, or an empty string."""
    held = _held(holder)
    distinct = {id(o): name for name, o in sorted(held.items())}  # public names come last and replace private ones
    return f" (its .{next(iter(distinct.values()))} is one)" if len(distinct) == 1 else ""
