"""What the callbacks for trainers share: `InTrainer` attaches at each start, keeps states, and gives numbers to log."""

import math
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradclip._types import AnyScalar, Scalar
from gradclip._words import short
from gradclip.backends.torch._attach import attach
from gradclip.backends.torch._handle import Clipping
from gradclip.backends.torch._step_clipper import StepClipper
from gradclip.monitor import NormMonitor
from gradclip.monitor._row import KEYS
from gradclip.monitor._sources import numbers_of
from gradclip.policies._policy import AnyPolicy


class StepNumbers:
    """What the steps since the last `reset` are to show in a log. Nothing is read back from a device."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the steps."""
        self._last: dict[str, Any] = {}
        self._steps = 0
        self._clipped: AnyScalar = 0

    def observe(self, source: Any) -> None:
        """Add the last step of a handle of `attach`, or of a Clipper."""
        self._last = _step_numbers(source)
        self._steps += 1
        self._clipped = self._clipped + self._last[KEYS["clipped"]]

    def read(self) -> dict[str, Any]:
        """Return floats and 0-d tensors by the names of `gradclip.monitor`; empty if there was no step.

        They are those of the last step, but ``gradclip/clipped`` is the share of steps that were clipped.
        """
        return {**self._last, KEYS["clipped"]: self._clipped / self._steps} if self._steps else {}


class InTrainer:
    """The clipping of the optimizers of a trainer, each by its own norm.

    A trainer makes its optimizers after its callbacks, and may make others later. So the arguments are checked now, the
    handles are made by `begin`, and the states of policies are handed from the handles before to the new ones.

    Parameters
    ----------
    max_norm : float, 0-d tensor, Policy or None
        As for `attach`.
    monitor : NormMonitor or None
        Records each step; with several optimizers, the steps of all.
    **arguments
        The others of `attach`.

    Attributes
    ----------
    clippings : list of Clipping
        The handles, in the order of the optimizers. Empty before `begin` and after `end`.
    """

    def __init__(
        self, max_norm: Scalar | AnyPolicy | None = None, *, monitor: NormMonitor | None = None, **arguments: Any
    ) -> None:
        given = signature(attach).bind((), max_norm, **arguments)
        given.apply_defaults()
        StepClipper(max_norm, **given.kwargs)  # checks them
        self._max_norm, self._monitor, self._arguments = max_norm, monitor, given.kwargs
        self.clippings: list[Clipping] = []
        self._saved: list[Any] = []
        self._seen: list[StepNumbers] = []

    def check_place(self, place: Any) -> None:
        """Check that an optimizer has the gradients, or a part that the arguments name.

        Parameters
        ----------
        place : object
            The strategy of Lightning, or the state of Accelerate.

        Raises
        ------
        ValueError
            For DeepSpeed and Megatron-LM, and for FSDP1 without ``group``.
        """
        names = {kind.__name__ for kind in type(place).__mro__}
        names.add(getattr(getattr(place, "distributed_type", None), "value", ""))
        if found := names & {"DeepSpeedStrategy", "DEEPSPEED", "MEGATRON_LM"}:
            raise ValueError(
                f"the trainer runs on {found.pop()}, which keeps gradients of its own and clips them itself, expected "
                "another; set its gradient clipping in place of gradclip's"
            )
        version = getattr(getattr(place, "fsdp_plugin", None), "fsdp_version", 1)
        if ("FSDPStrategy" in names or ("FSDP" in names and version == 1)) and self._arguments["group"] is None:
            raise ValueError(
                "the trainer runs on FSDP1, where each rank has a part of the gradients, expected group=, the ranks "
                "that share one norm; pass group=torch.distributed.group.WORLD, or use FSDP2"
            )

    def begin(self, optimizers: Sequence[Optimizer]) -> bool:
        """Attach to optimizers, unless these are clipped already. Return whether it attached.

        Raises
        ------
        ValueError
            If the states that were loaded are of another number of optimizers.
        """
        at = zip(self.clippings, optimizers, strict=False)
        if len(self.clippings) == len(optimizers) and all(clipping.attached_to(o) for clipping, o in at):
            return False
        self.end()
        saved = self._saved or [None] * len(optimizers)
        if len(saved) != len(optimizers):
            raise ValueError(
                f"the saved state is of {len(saved)} optimizers, expected one for each of {len(optimizers)}; resume "
                "with the optimizers that it was saved with"
            )
        self.clippings = [attach(optimizer, self._max_norm, **self._arguments) for optimizer in optimizers]
        self._seen = [StepNumbers() for _ in optimizers]
        for clipping, state, seen in zip(self.clippings, saved, self._seen, strict=True):
            if state is not None:
                clipping.load_state_dict(state)
            clipping.observers.append(seen.observe)
            if self._monitor is not None:
                clipping.observers.append(self._record)
        return True

    def end(self) -> None:
        """Stop clipping; the states of policies are kept for the next `begin`."""
        self._saved = self._states()
        for clipping in self.clippings:
            clipping.remove()
        self.clippings = []

    def read(self) -> dict[str, Any]:
        """Return what `StepNumbers` says of each optimizer. If there are several, names end in their numbers."""
        several = len(self._seen) > 1
        each = enumerate(seen.read() for seen in self._seen)
        return {f"{key}/{i}" if several else key: value for i, numbers in each for key, value in numbers.items()}

    def reset(self) -> None:
        """Forget the steps that were seen."""
        for seen in self._seen:
            seen.reset()

    def take(self) -> dict[str, float]:
        """Return what `read` does as floats, for which the host waits, and forget the steps."""
        numbers = {key: float(value) for key, value in self.read().items()}
        self.reset()
        return numbers

    def state_dict(self) -> dict[str, Any]:
        """Return the states of policies, one for each optimizer, as plain numbers, lists and dicts."""
        return {"clippings": self._states()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned, now or at the next `begin`.

        Raises
        ------
        TypeError
            If it is something else.
        """
        if not isinstance(state_dict, Mapping) or not isinstance(state_dict.get("clippings"), list):
            raise TypeError(f"state_dict is {short(state_dict)}, expected what state_dict() returned; pass that")
        self._saved = list(state_dict["clippings"])
        if self._saved:
            for clipping, state in zip(self.clippings, self._saved, strict=bool(self.clippings)):
                clipping.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "clippings": [], "_saved": self._states(), "_seen": [], "_monitor": None}

    def _states(self) -> list[Any]:
        return _plain([clipping.state_dict() for clipping in self.clippings]) if self.clippings else self._saved

    def _record(self, clipping: Clipping) -> None:
        if self._monitor is not None:
            self._monitor.record(**numbers_of(clipping))


def _step_numbers(source: Any) -> dict[str, Any]:
    """Return what a source says of its last step. Of several groups or gradients, one number is returned."""
    said = numbers_of(source)
    if not getattr(getattr(source, "policy", source.max_norm), "skips", False):
        del said["skipped"]
    return {KEYS[name]: _single(name, value) for name, value in said.items()}


def _single(name: str, value: Any) -> Any:
    if not isinstance(value, Tensor) or value.ndim == 0:
        return value
    if not value.numel():
        return math.nan
    if name == "norm":
        return torch.linalg.vector_norm(value)
    return value.any() if value.dtype == torch.bool else value.min()


def _plain(value: Any) -> Any:
    """Return tensors in lists and dicts as numbers and lists."""
    if isinstance(value, Mapping):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, list):
        return list(map(_plain, value))
    return value.tolist() if isinstance(value, Tensor) else value
