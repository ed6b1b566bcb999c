"""`PolicyStates`: what the policies of an optimizer's clipping remember, by the names of the parts that they clip."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradclip._words import short
from gradclip.backends.torch._leaves import TorchLeaves
from gradclip.policies._as_policy import restored, saved
from gradclip.policies._policy import AnyPolicy


class PolicyStates:
    """The states of policies. A state is used only by its owner: the policy that it is of, or what names that."""

    def __init__(self) -> None:
        self._states: dict[str, Any] = {}
        self._owners: dict[str, object] = {}
        self._loaded: frozenset[str] = frozenset()

    def of(self, name: str, owner: object) -> Any:
        """Return the state of a part; None if there is none, or if it is of another owner.

        A state that was loaded has no owner yet; it is returned to any.
        """
        mine = self._owners.get(name, owner)
        return self._states.get(name) if mine is owner or mine == owner else None

    def keep(self, name: str, owner: object, state: Any) -> None:
        """Remember the state of a part, and whose it is."""
        self._states[name], self._owners[name] = state, owner

    def forget(self, owner: object) -> None:
        """Forget the states of an owner, and that of the part with the name "all"."""
        gone = {"all", *(name for name, mine in self._owners.items() if mine == owner)}
        self._states = {name: state for name, state in self._states.items() if name not in gone}
        self._loaded -= gone

    def save(self) -> dict[str, Any]:
        """Return the states as plain numbers, lists and tensors."""
        return {name: saved(state) for name, state in self._states.items()}

    def load(self, states: Mapping[str, Any]) -> None:
        """Take what `save` returned."""
        if not isinstance(states, Mapping) or not all(s is None or isinstance(s, Mapping) for s in states.values()):
            raise TypeError(f"states is {short(states)}, expected the dict that state_dict() returned; pass that")
        self._states, self._owners, self._loaded = dict(states), {}, frozenset(states)

    def check_loaded(self, names: Sequence[str]) -> None:
        """Check, once after `load`, that each state is of a part that a policy clips.

        Raises
        ------
        ValueError
            If one is not: its policy would begin anew, without a warning.
        """
        if not self._loaded:
            return
        if self._loaded - set(names):
            raise ValueError(
                f"the state_dict that was loaded has policies for {sorted(self._loaded)}, expected {sorted(names)}, "
                "the parts that policies clip here; attach with the policies, param groups and per_group= of the run "
                "that was saved, or do not load it"
            )
        self._loaded = frozenset()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_owners": {}}  # a policy may hold a function, which cannot be pickled


class Rows(NamedTuple):
    """Which rows of a policy's state belong to the gradients of a step; the state has one row for each parameter.

    Parameters
    ----------
    present : tuple of int
        The positions of the rows of the gradients, and of the row for what other ranks hold.
    total : int
        How many rows there are.
    """

    present: tuple[int, ...]
    total: int

    @classmethod
    def of(cls, params: Sequence[Tensor], leaves: TorchLeaves) -> "Rows | None":
        """Return the rows of parameters' gradients; None if no gradient is missing.

        Parameters that need no gradient and have none, because they are frozen, have no row.
        """
        if len(leaves.arrays) == len(params):
            return None
        learning = {id(p): p for p in params if p.requires_grad or p.grad is not None}.values()
        first: dict[int, int] = {}  # tied parameters, and those that share a gradient, have one
        for i, p in enumerate(learning):
            if p.grad is not None:
                first.setdefault(id(p.grad), i)
        if len(first) == len(learning):
            return None
        others = (len(learning),) if leaves.is_spread else ()
        return cls((*first.values(), *others), len(learning) + len(others))

    def of_state(self, policy: AnyPolicy, state: Any) -> Any:
        """Return a state that has these rows only.

        Raises
        ------
        ValueError
            If it has not as many rows as there are parameters.
        """
        if state is None:
            return None
        fields = state if isinstance(state, Mapping) else state._asdict()
        for name, value in fields.items():
            if _length(value) not in (None, self.total):
                raise ValueError(
                    f"{name} of {type(policy).__name__} has {_length(value)} elements, expected {self.total}, one for "
                    "each parameter that learns; after parameters were added, frozen or unfrozen, call attach() again"
                )
        picked = {name: value if _length(value) is None else self._picked(value) for name, value in fields.items()}
        return picked if isinstance(state, Mapping) else type(state)(**picked)

    def put(self, policy: AnyPolicy, state: Any, after: Any) -> Any:
        """Return the state of all rows after a step: these rows are those of ``after``, the others of ``state``."""
        if after is None or isinstance(after, Mapping):  # there were no gradients
            return state
        rows = next(x for x in after if _length(x) is not None)
        like = rows.new_zeros(self.total) if isinstance(rows, Tensor) else np.zeros(self.total, rows.dtype)
        if state is None:
            state = policy.init(like)
        elif isinstance(state, Mapping):
            state = restored(policy, like, state)
        pairs = zip(state, after, strict=True)
        return type(after)(*(y if _length(y) is None else self._replaced(x, y) for x, y in pairs))

    def _picked(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.index_select(0, _index(self.present, value.device))
        return [value[i] for i in self.present] if isinstance(value, list) else value[list(self.present)]

    def _replaced(self, value: Any, rows: Any) -> Any:
        if isinstance(value, Tensor):
            return value.index_copy(0, _index(self.present, value.device), rows)
        replaced = value.copy()
        replaced[list(self.present)] = rows
        return replaced


def _length(value: Any) -> int | None:
    """Return the number of elements of an array or list; None for a number."""
    if isinstance(value, list):
        return len(value)
    return value.shape[0] if getattr(value, "ndim", 0) else None


@lru_cache(maxsize=64)
def _index(places: tuple[int, ...], device: torch.device) -> Tensor:
    """Return places as a tensor, which is kept: the host waits for its copy to a device."""
    return torch.tensor(places, dtype=torch.int64, device=device)
