"""`NamedNorms`: the norms of parameters' gradients as one array, for a monitor, which asks at every step."""

from collections.abc import Mapping
from operator import attrgetter

from torch import Tensor

from gradclip._memory import NDArray
from gradclip.backends.torch._explain import grad_norms
from gradclip.backends.torch._leaves import Parameters, gradients
from gradclip.backends.torch._walk import named_tensors
from gradclip.backends.torch.ops._devices import SeveralDevices
from gradclip.backends.torch.ops._host import host_norms
from gradclip.backends.torch.ops._rank_ops import RankOps

_grad = attrgetter("grad")


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
        if isinstance(parameters, Mapping) and all(isinstance(name, str) for name in parameters):
            parameters = parameters.items()  # the names are those of the dict
        found = named_tensors(parameters, "parameters", "NamedNorms")
        self._names, self._params = tuple(name for name, _ in found), [p for _, p in found]

    def __call__(self) -> tuple[tuple[str, ...], Tensor | NDArray] | dict[str, Tensor]:
        """Return the names of parameters that have a gradient, and the Euclidean norms of these, shape ``(names,)``.

        On a host, they are a NumPy array. Where a norm takes several ranks or devices, a dict of 0-d norms is returned.
        """
        norms = host_norms(list(map(_grad, self._params)))
        return self._by_walking() if norms is None else (self._names, norms)

    def _by_walking(self) -> tuple[tuple[str, ...], Tensor] | dict[str, Tensor]:
        """Return the same for parameters of which some have no gradient, or that are on devices or ranks."""
        names, leaves = self._names, gradients(self._params)
        if len(leaves.slots) < len(names):
            names = tuple(name for name, p in zip(names, self._params, strict=True) if p.grad is not None)
        if isinstance(leaves.ops, RankOps | SeveralDevices):
            return grad_norms(zip(names, (p for p in self._params if p.grad is not None), strict=True))
        partials = leaves.partials(2.0)
        norms: Tensor = partials.total.sqrt_().mul_(partials.scale)  # nobody else has these partial norms
        if not isinstance(leaves.slots, range):  # a gradient that parameters share is one leaf
            norms = norms[list(leaves.slots)]
        return names, norms
