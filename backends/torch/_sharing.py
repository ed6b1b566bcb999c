"""What a call says of other ranks: ``group=`` and ``replicated=``, or what can be inferred without them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from gradclip.backends.torch._walk import named_tensors
from gradclip.backends.torch.ops._exchange import Exchange
from gradclip.backends.torch.ops._ownership import (
    any_distributed,
    are_covering,
    inferred,
    is_distributed,
    refuse_nothing,
)
from gradclip.backends.torch.ops._rank_ops import Spread
from gradclip.backends.torch.ops._ranks import Ranks, everyone, is_initialized, ranks_of

Group: TypeAlias = Any
"""A ProcessGroup, a DeviceMesh, or None."""

Replicated: TypeAlias = Any
"""A Module, an iterable of tensors, or a bool: the parameters that are the same on all ranks."""


class Sharing:
    """How the gradients of one call are shared with other ranks.

    It is a context: an error that is raised within it, before ranks exchanged anything, is told to the other ranks, so
    that none waits for this one.

    Parameters
    ----------
    parameters : object
        What the call was given, for an error that is raised before the parameters are found.
    group : ProcessGroup, DeviceMesh or None
        The ranks over which the gradients are spread; None: they are inferred.
    replicated : bool, Module or iterable of Tensor
        The parameters that are the same on all ranks; True: all that are plain tensors.
    part : bool
        Whether these are a part of the parameters of a call, which may be empty.
    """

    def __init__(self, parameters: object, group: Any, replicated: Any, *, part: bool = False) -> None:
        self._given, self._replicated, self._part = parameters, replicated, part
        self._fixed = None if group is None else ranks_of(group)
        self._spread: Spread | None = None
        self._same: frozenset[int] = frozenset()
        self._inferred: Ranks | None = None
        self.exchange = Exchange(self._ranks, self._waiting)

    @property
    def is_alone(self) -> bool:
        """Whether this process has no other ranks."""
        return self is _ALONE

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self.exchange.fail(error)

    def spread(
        self, grads: Sequence[Tensor], paths: Callable[[], list[str]], holders: Sequence[Tensor]
    ) -> Spread | None:
        """Return how distinct gradients are spread over ranks; None if each rank has them all.

        Raises
        ------
        ValueError
            If it is not known, because other ranks may hold parameters that this rank does not know of.
        """
        self._same = _same_everywhere(self._replicated, holders)
        self._spread = Spread(grads, paths, holders, self._same)
        if self._fixed is None and not any_distributed(holders):
            if not holders and not self._part:
                refuse_nothing()
            self._ranks()
            return None
        return self._spread

    def _ranks(self) -> Ranks | None:
        if self._fixed is not None:
            return self._fixed
        spread = self._spread
        if spread is None:  # an error was raised before the gradients were found
            return everyone() if is_initialized() and _has_dtensors(self._given) else None
        if self._inferred is None:
            self._inferred = inferred(spread.holders, spread.meshes, spread.path_of, self._same)
        return self._inferred

    def _waiting(self) -> Ranks | None:
        """Return the ranks that may be waiting for this one: not those of meshes that do not hold all ranks."""
        spread = self._spread
        if self._fixed is not None or spread is None:
            return self._ranks()
        return everyone() if spread.meshes and are_covering(spread.meshes) else None


def sharing_of(parameters: object, group: Any = None, replicated: Any = (), *, part: bool = False) -> Sharing:
    """Return how the gradients of a call are shared.

    Raises
    ------
    TypeError
        If ``group`` is neither a ProcessGroup nor a DeviceMesh.
    ValueError
        If this process has no other ranks, or is not in the group.
    """
    if group is None and not is_initialized():
        return _ALONE
    return Sharing(parameters, group, replicated, part=part)


def are_none(replicated: Any) -> bool:
    """Whether ``replicated`` names no parameters, as by default."""
    return replicated is False or (isinstance(replicated, tuple) and not replicated)


def _same_everywhere(replicated: Any, holders: Sequence[Tensor]) -> frozenset[int]:
    """Return the ``id`` of the parameters that are declared replicated, and of their gradients."""
    if replicated is True:
        chosen: Iterable[Any] = (x for x in holders if not is_distributed(x))
    elif are_none(replicated):
        return frozenset()
    else:
        chosen = (x for _, x in named_tensors(replicated, "replicated", strict=False))
    return frozenset(id(y) for x in chosen for y in (x, x.grad) if y is not None)


def _has_dtensors(given: object) -> bool:
    """Whether there is a DTensor in what a call was given, which may have been refused."""
    if isinstance(given, Module):
        return any_distributed(given.parameters())
    if isinstance(given, Optimizer):
        return _has_dtensors(given.param_groups)
    if isinstance(given, Mapping):
        return _has_dtensors(list(given.values()))
    return isinstance(given, list | tuple) and any(is_distributed(x) or _has_dtensors(x) for x in given)


_ALONE = Sharing((), None, ())
"""The sharing of a process without other ranks."""
