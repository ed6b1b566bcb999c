"""`NamedNorms`: the norms of parameters' gradients as one tensor, for a monitor, which asks at every step."""

from torch import Tensor

from gradclip.backends.torch._explain import grad_norms
from gradclip.backends.torch._leaves import Parameters, gradients
from gradclip.backends.torch._walk import named_tensors
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
        self._named = named_tensors(parameters, "parameters", "NamedNorms")

    def __call__(self) -> tuple[list[str], Tensor] | dict[str, Tensor]:
        """Return the names of parameters that have a gradient, and the Euclidean norms of these, shape ``(names,)``.

        Where a norm takes several ranks or devices, or parameters share a gradient, a dict of 0-d norms is returned.
        """
        kept = [(name, p) for name, p in self._named if p.grad is not None]
        params = [p for _, p in kept]
        leaves = gradients(params)
        alone = len({g.device for g in leaves.arrays}) == 1 and not isinstance(leaves.ops, RankOps)
        if not alone or len(leaves.arrays) < len(kept):
            return grad_norms(kept)
        return [name for name, _ in kept], leaves.partials(2.0).norm()
