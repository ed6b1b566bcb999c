"""The handle that `attach` returns: its threshold, the results of the last step, and ``remove()``."""

import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradclip._types import AnyScalar
from gradclip._words import short
from gradclip.backends.torch import _optimizers
from gradclip.backends.torch._leaves import Parameters
from gradclip.backends.torch._named_norms import NamedNorms
from gradclip.backends.torch._round import Round
from gradclip.backends.torch._skip import Skipping
from gradclip.backends.torch._step_clipper import StepClipper
from gradclip.policies._policy import AnyPolicy

if TYPE_CHECKING:
    from gradclip.backends.torch._step import Told

_BETWEEN_GRAPHS = (
    "this clipping cannot be in a graph, expected one without observers (as a monitor is one), a policy that skips "
    "steps, several optimizers, a GradScaler, ranks or DTensors; compile the step without fullgraph=True"
)


class Clipping:
    """What `attach` returns: the clipping of an optimizer, until it is removed.

    It can be pickled and copied. The copy keeps the threshold and the results of the last step, but is attached to no
    optimizer, because copies of an optimizer have no hooks; a warning says so. Attach to the copy of the optimizer.

    Attributes
    ----------
    max_norm : float, 0-d tensor, Policy or None
        The threshold, or the policy that chooses it. Set it to change it. A tensor is read at each step.
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
    threshold : float, Tensor or None
        The threshold of the last step, as a policy chose it: inf if there was none, 0-d or one for each gradient or
        group that has its own. None before the first step.
    skipped : bool, Tensor or None
        Whether the last step was skipped, as `gradclip.policies.SkipStep` may say. None before the first step.
    observers : list of callable
        Called with this handle after each clipping, before the optimizer's step. If one has a method
        ``before_clipping``, that is called with this handle and the loss scale before each clipping.
    """

    __slots__ = (
        "__weakref__", "_clipper", "_hooks", "_optimizers", "_round", "_skipping", "_told", "observers",
    )  # fmt: skip

    def __init__(self, clipper: StepClipper) -> None:
        self._clipper = clipper
        self.observers: list[Callable[[Clipping], object]] = []
        self._optimizers: list[weakref.ref[Optimizer]] = []
        self._hooks: list[Any] = []
        self._round, self._skipping = Round(), Skipping()
        self._told: Told | None = None

    @property
    def norm(self) -> Tensor | None:
        """The unscaled norm before the last step's clipping."""
        return self._told.norm if self._told else None

    @property
    def coefficient(self) -> Tensor | None:
        """What the gradients were multiplied by."""
        return self._told.coefficient if self._told else None

    @property
    def clipped(self) -> Tensor | None:
        """Whether the gradients were clipped."""
        return self._told.clipped if self._told else None

    @property
    def threshold(self) -> AnyScalar | None:
        """The threshold of the last step."""
        return self._told.threshold if self._told else None

    @property
    def skipped(self) -> bool | Tensor | None:
        """Whether the last step was skipped."""
        return self._told.skipped if self._told else None

    @property
    def max_norm(self) -> AnyScalar | AnyPolicy | None:
        """The threshold, or the policy that chooses it."""
        return self._clipper.max_norm

    @max_norm.setter
    def max_norm(self, value: AnyScalar | AnyPolicy | None) -> None:
        self._clipper.max_norm = value

    @property
    def max_value(self) -> AnyScalar | None:
        """The bound of each element."""
        return self._clipper.max_value

    @max_value.setter
    def max_value(self, value: AnyScalar | None) -> None:
        self._clipper.max_value = value

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
        """Remove the hooks; the optimizer is no longer clipped. A second call does nothing."""
        for hook in self._hooks:
            hook.remove()
        self._skipping.remove()
        self._hooks, self._optimizers = [], []

    def begin(self, optimizers: Sequence[Optimizer]) -> None:
        """Register the hooks that clip before each step of optimizers."""
        self._hooks = [optimizer.register_step_pre_hook(self._before) for optimizer in optimizers]
        self._optimizers = list(map(weakref.ref, optimizers))

    def check(self, optimizers: Sequence[Optimizer]) -> None:
        """Check what the param groups of optimizers say of clipping."""
        self._clipper.skips([group for optimizer in optimizers for group in optimizer.param_groups])

    def named_norms(self, parameters: Parameters) -> NamedNorms:
        """Return what computes the norm of each parameter's gradient, for `gradclip.monitor.NormMonitor`.

        Parameters
        ----------
        parameters : Module, Optimizer, iterable or dict
            As for `grad_norms`.
        """
        return NamedNorms(parameters)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of policies, by which a resumed run has the thresholds that this one would have had.

        They are plain numbers, lists and, on a device, tensors: ``torch.load(..., weights_only=True)`` reads them.
        """
        return {"policies": self._clipper.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned.

        Parameters
        ----------
        state_dict : dict
            Of a handle with the same policies.

        Raises
        ------
        TypeError
            If it is something else. That it is of other policies or groups is noticed at the next step: a ValueError.
        """
        if not isinstance(state_dict, Mapping) or "policies" not in state_dict:
            raise TypeError(
                f"state_dict is {short(state_dict)}, expected what state_dict() of a handle returned; pass that"
            )
        self._clipper.load_state_dict(state_dict["policies"])

    def __repr__(self) -> str:
        limits = [f"max_norm={self.max_norm!r}"]
        if self.max_value is not None:
            limits.append(f"max_value={self.max_value!r}")
        found = [type(optimizer).__name__ for optimizer in map(_dereferenced, self._optimizers) if optimizer]
        where = f"attached to {', '.join(found)}" if found else "attached to no optimizer"
        last = [f"{name}={_shown(getattr(self, name))}" for name in ("norm", "coefficient", "clipped")]
        if self.skipped is not False and self.norm is not None:
            last.append(f"skipped={_shown(self.skipped)}")
        done = f"last step: {', '.join(last)}" if self.norm is not None else "no step yet"
        return f"Clipping({', '.join(limits)}, {where}; {done})"

    def __getstate__(self) -> dict[str, Any]:
        return {"clipper": self._clipper, "told": self._told, "was_attached": self._hooks != []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Clipping.__init__(self, state["clipper"])  # a copy is a new handle
        self._told = state["told"]
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
        if len(self._optimizers) > 1:
            raise TypeError(
                f"{type(optimizer).__name__}.step() got a closure, expected none: it computes the gradients of one "
                "optimizer within its step, but one norm over several optimizers was asked for; call attach() for each"
            )
        given = [self._after(x, optimizer) if callable(x) else x for x in rest]
        named = {name: self._after(x, optimizer) if callable(x) else x for name, x in kwargs.items()}
        return (*args[:1], *given), named

    def _after(self, given: Callable[..., Any], optimizer: Optimizer) -> Callable[..., Any]:
        """Return a closure that calls the given one, then clips. The step may call it several times.

        Whether a step is skipped is decided after the first call; then there are no others.
        """
        decided = False

        def closure(*args: Any, **kwargs: Any) -> Any:
            nonlocal decided
            loss = given(*args, **kwargs)
            if not (decided and self._clipper.skips(optimizer.param_groups)):
                self._clip(optimizer)
            decided = True
            return loss

        return closure

    def _clip(self, optimizer: Optimizer) -> None:
        if not torch.compiler.is_compiling():
            self._clip_now(optimizer)
            return
        single = len(self._optimizers) == 1 and not self.observers and not _optimizers.has_scaler(optimizer)
        told = self._clipper.clip_compiled_(optimizer.param_groups) if single else None
        if told is None:
            torch._dynamo.graph_break(msg=_BETWEEN_GRAPHS)  # with fullgraph=True, an error that shows the message
            cast("Any", torch.compiler.disable(self._clip_now))(optimizer)
        else:
            self._told = told

    @torch.no_grad()
    def _clip_now(self, optimizer: Optimizer) -> None:
        unless = _optimizers.skipped(optimizer)
        if unless is True or (self._clipper.reads_back and bool(unless)):
            return
        together = [o for o in map(_dereferenced, self._optimizers) if o is not None]
        if self._round.has_clipped(optimizer):
            self._skip(optimizer)
            return
        scale = _optimizers.loss_scale(optimizer, alone=len(together) == 1)
        groups = [group for o in together for group in o.param_groups]
        for observer in self.observers:
            if (before := getattr(observer, "before_clipping", None)) is not None:
                before(self, scale)
        self._told = self._clipper.clip_(groups, scale, unless, self._told)
        self._round.begin(optimizer, together)
        for observer in self.observers:
            observer(self)
        self._skip(optimizer)

    def _skip(self, optimizer: Optimizer) -> None:
        """Make the optimizer's step do nothing, if this step is skipped."""
        if self._told is not None and self._told.skipped is not False:
            self._skipping.begin(optimizer, self._told.skipped)


def _is_repeated(optimizer: Optimizer) -> bool:
    """Whether the hooks ran already for this step. In a compiled graph, False: it has no stack frames to find out."""
    return not torch.compiler.is_compiling() and _optimizers.is_within_its_step(optimizer)


def clippings_of(optimizer: Optimizer) -> list[Clipping]:
    """Return the handles whose hooks are registered with an optimizer."""
    owners = [getattr(hook, "__self__", None) for hook in _optimizers.pre_hooks(optimizer)]
    return [owner for owner in owners if isinstance(owner, Clipping)]


def _dereferenced(reference: "weakref.ref[Optimizer]") -> Optimizer | None:
    return reference()


def _shown(value: object) -> str:
    """Return a number, or numbers, with 4 digits. The host waits for a tensor on a device."""
    if isinstance(value, Tensor):
        value = "unknown" if value.is_meta else value.tolist()
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
