"""`NamedNorms`: the norms of parameters' gradients as one tensor, for a monitor, which asks at every step."""

from typing import Any

from torch import Tensor
from torch.nn import Parameter

from gradclip._partial import NormPartial
from gradclip.backends.torch._explain import grad_norms
from gradclip.backends.torch._leaves import Parameters, gradients
from gradclip.backends.torch._walk import named_tensors
from gradclip.backends.torch.ops._devices import SeveralDevices
from gradclip.backends.torch.ops._host import plain_host_ops
from gradclip.backends.torch.ops._rank_ops import RankOps


class NamedNorms:
    """Computes the norm of each parameter's gradient. The parameters' names are looked up only once.

    Parameters
    ----------
    parameters : Module, Optimizer, iterable or dict
        As for `grad_norms`. Parameters that a module gets later are not included.

    Raises
    ------
    TypeError
        If it holds no parameters.
    """

    def __init__(self, parameters: Parameters) -> None:
        found = named_tensors(parameters, "parameters", "NamedNorms")
        self._names, self._params = tuple(name for name, _ in found), [p for _, p in found]
        self._plain = {type(p) for p in self._params} == {Parameter}

    def __call__(self) -> tuple[tuple[str, ...], Tensor] | dict[str, Tensor]:
        """Return the names of parameters that have a gradient, and the Euclidean norms of these, shape ``(names,)``.

        Where a norm takes several ranks or devices, or parameters share a gradient, a dict of 0-d norms is returned.
        """
        grads: list[Any] = [p.grad for p in self._params]
        ops = plain_host_ops(grads) if self._plain else None
        return self._by_walking() if ops is None else (self._names, _norms(ops.partials(grads, 2.0)))

    def _by_walking(self) -> tuple[tuple[str, ...], Tensor] | dict[str, Tensor]:
        """Return the same for parameters of which some have no gradient, or that are on devices or ranks."""
        names, leaves = self._names, gradients(self._params)
        if len(leaves.arrays) < len(names):
            kept = [(name, p) for name, p in zip(names, self._params, strict=True) if p.grad is not None]
            if len(leaves.arrays) < len(kept):  # a shared gradient is one leaf
                return grad_norms(kept)
            names = tuple(name for name, _ in kept)
        if isinstance(leaves.ops, RankOps | SeveralDevices):
            return grad_norms(zip(names, (p for p in self._params if p.grad is not None), strict=True))
        return names, _norms(leaves.partials(2.0))


def _norms(partials: NormPartial) -> Tensor:
    """Return Euclidean norms, in the dtype of partial norms; where scales are 1, rounding is all that they change."""
    norms: Tensor = partials.total.sqrt_().mul_(partials.scale)  # nobody else has these partial norms
    return norms
