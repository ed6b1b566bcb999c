"""A round of several optimizers: they are clipped by one norm before the first of them steps."""

from collections.abc import Sequence

from torch.optim import Optimizer


class Round:
    """Which optimizers' gradients are clipped already, because they step after another one."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[tuple[int, int]]] = {}

    def begin(self, first: Optimizer, together: Sequence[Optimizer]) -> None:
        """Note that the gradients of all optimizers were clipped, before the first of them steps."""
        self._waiting = {id(o): _versions(o) for o in together if o is not first}

    def has_clipped(self, optimizer: Optimizer) -> bool:
        """Whether an optimizer's gradients were clipped in this round, and nobody changed them after that.

        It is asked before the optimizer steps. When it steps again, a new round begins.
        """
        clipped = self._waiting.pop(id(optimizer), None)
        return clipped is not None and clipped == _versions(optimizer)


def _versions(optimizer: Optimizer) -> list[tuple[int, int]]:
    """Return which tensors the gradients are, and how often each was written."""
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return [(id(g), g._version) for g in grads]
