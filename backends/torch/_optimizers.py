"""What `attach` must know of an optimizer: which one runs its hooks, and what ``torch.amp.GradScaler`` left in it."""

import sys
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from gradclip._types import AnyScalar
from gradclip._words import kind

_SHOWN = ("optimizer", "base_optimizer")
"""What wrappers call a property that is the optimizer they wrap."""


def hooked(optimizer: object) -> Optimizer:
    """Return the optimizer whose ``step`` runs the hooks: this one, or the one that it wraps.

    A wrapper is an Optimizer that never ran ``Optimizer.__init__``: hooks can be registered with it, but its own
    ``step`` does not run them. The optimizer that it wraps has all of its parameters, and is found in a public
    attribute, or in a private one if both share their hooks.

    Raises
    ------
    TypeError
        If it is no Optimizer, or neither it nor an optimizer that it wraps runs hooks.
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
    """Yield an optimizer, the one that it wraps, the one that this wraps, and so on."""
    seen: list[Optimizer] = []
    found: Optimizer | None = optimizer
    while found is not None and all(found is not other for other in seen):
        yield found
        seen.append(found)
        found = _wrapped(found)


def is_within_its_step(optimizer: Optimizer) -> bool:
    """Whether the step that runs these hooks was called within a step that ran them already.

    That is so where a class whose ``step`` calls its parent's, or a wrapper that shares the hooks of the optimizer that
    it wraps, was wrapped by PyTorch as well.
    """
    frame = sys._getframe(3)  # of PyTorch's function, which called the hook, which called this by way of another one
    code, outer, hooks = frame.f_code, frame.f_back, _hooks_of(optimizer)
    while outer is not None:
        if outer.f_code is code and _hooks_of(outer.f_locals.get("self")) is hooks:
            return True
        outer = outer.f_back
    return False


def runs_hooks(optimizer: Optimizer) -> bool:
    """Whether the step of an optimizer runs the hooks that are registered with it."""
    return bool(getattr(type(optimizer).step, "hooked", False)) and _hooks_of(optimizer) is not None


def has_hook(optimizer: Optimizer, hook: object) -> bool:
    """Whether a hook is registered to run before the steps of an optimizer."""
    return any(hook == other for other in (_hooks_of(optimizer) or {}).values())


def pre_hooks(optimizer: Optimizer) -> list[Any]:
    """Return what runs before the steps of an optimizer."""
    return list((_hooks_of(optimizer) or {}).values())


def loss_scale(optimizer: Optimizer) -> AnyScalar:
    """Return what the step is going to divide the gradients by: a float on a host, else a 0-d tensor.

    ``GradScaler`` sets ``grad_scale`` for a fused step that is to unscale the gradients itself. None and absent mean 1.
    """
    scale: Any = getattr(optimizer, "grad_scale", None)
    if scale is None:
        return 1.0
    if isinstance(scale, Tensor) and scale.device.type != "cpu":
        return scale.reshape(())
    return float(scale)


def has_scaler(optimizer: Optimizer) -> bool:
    """Whether ``GradScaler`` has set anything for the step."""
    return any(getattr(optimizer, name, None) is not None for name in ("grad_scale", "found_inf"))


def skipped(optimizer: Optimizer) -> bool | Tensor:
    """Return whether the step is going to do nothing: a bool on a host, else a 0-d boolean tensor.

    ``GradScaler`` sets ``found_inf`` for a fused step, which it calls even if gradients overflowed.
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
    """Return the optimizers in the attributes of an object, and in the properties by which wrappers show theirs."""
    values = {**{name: getattr(holder, name, None) for name in _SHOWN}, **getattr(holder, "__dict__", {})}
    return {name: value for name, value in values.items() if isinstance(value, Optimizer)}


def _params(optimizer: Optimizer) -> set[int]:
    groups = getattr(optimizer, "param_groups", [])
    return {id(p) for group in groups for p in group["params"]}


def _hint(holder: object) -> str:
    """Return which attribute of an object is the optimizer that may be meant."""
    held = _held(holder)
    distinct = {id(o): name for name, o in sorted(held.items())}  # public names come last and stay
    return f" (its .{next(iter(distinct.values()))} is one)" if len(distinct) == 1 else ""
