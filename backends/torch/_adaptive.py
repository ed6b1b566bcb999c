"""Adaptive gradient clipping of a model's gradients: each unit by the norm of its own weights."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

from gradclip._adaptive import UnitRule, clip_units_
from gradclip._types import Axes, Scalar
from gradclip._words import kind
from gradclip.backends.torch._arguments import listed
from gradclip.backends.torch._compiled import between_graphs
from gradclip.backends.torch._leaves import Parameters, leaves_of
from gradclip.backends.torch._walk import named_tensors, refuse_gradients
from gradclip.backends.torch.ops._ownership import is_distributed, refuse_shards

Names: TypeAlias = str | Iterable[str]


@between_graphs
def adaptive_grad_clip_(
    parameters: Parameters, clipping: Scalar = 0.01, eps: Scalar = 1e-3, *, exclude: Names = ()
) -> None:
    r"""Clip gradients in place, unit by unit, to ``clipping`` times the norm of their weights (AGC).

    .. math:: G_i \leftarrow G_i \cdot \min\Big(1, \lambda\,\frac{\max(\|W_i\|, \epsilon)}{\|G_i\|}\Big)

    A unit is one index of the first axis of a weight: in PyTorch's linear and convolutional layers, all weights of one
    output. A parameter of one axis or none, such as a bias, is one unit. The host waits for no accelerator.

    Parameters
    ----------
    parameters : Tensor, Module, Optimizer, iterable or dict
        As for `clip_grad_norm_`, but not gradients: the values of the parameters are the weights. Parameters without a
        gradient are left out.
    clipping : float or 0-d tensor
        λ, at least 0: the largest ratio of a gradient's norm to its weights' norm. inf: no clipping.
    eps : float or 0-d tensor
        ε, at least 0: a smaller norm of a unit's weights is replaced by ε, so that weights of zero can change.
    exclude : str or iterable of str
        Names of parameters and of modules that are not clipped, such as ``"head"``: the paper does not clip the last
        linear layer. ``*`` stands for any characters, ``?`` for any one character.

    Raises
    ------
    TypeError
        If gradients are passed instead of parameters, a gradient is sparse or a DTensor, ``clipping`` or ``eps`` is not
        a number, or ``exclude`` is not names.
    ValueError
        If ``clipping`` or ``eps`` is negative or NaN, a name in ``exclude`` fits no parameter, or gradients or units of
        one gradient overlap in memory. All errors are raised before the first write.

    References
    ----------
    .. [1] A. Brock, S. De, S. L. Smith, K. Simonyan, "High-Performance Large-Scale Image Recognition Without
       Normalization", ICML 2021, arXiv:2102.06171, equation 3.

    Examples
    --------
    >>> import torch
    >>> from gradclip.backends.torch import adaptive_grad_clip_
    >>> layer = torch.nn.Linear(2, 2)
    >>> _ = torch.nn.init.ones_(layer.weight)
    >>> layer.weight.grad = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    >>> adaptive_grad_clip_(layer, 0.5, exclude="bias")
    >>> layer.weight.grad
    tensor([[0.4243, 0.5657],
            [0.3000, 0.4000]])
    """
    rule = UnitRule(clipping, eps, unit_axes)
    named = named_tensors(listed(parameters), "parameters", _CALLER)
    refuse_gradients(named, _CALLER)
    names = parameters.named_parameters(remove_duplicate=False) if isinstance(parameters, Module) else named
    excluded = _excluded(list(names), exclude)
    units = [(name, p, p.grad) for name, p in named if id(p) not in excluded and p.grad is not None]
    refuse_shards([p for _, p, _ in units], lambda i: units[i][0])
    for name, p, g in units:
        _check(name, p, g)
    with torch.no_grad():
        leaves = leaves_of([g for _, _, g in units], lambda: [f"{name}.grad" for name, _, _ in units])
        clip_units_(leaves, leaves.firsts([p for _, p, _ in units]), rule)


_CALLER = "adaptive_grad_clip_"


def unit_axes(shape: tuple[int, ...]) -> Axes:
    """Return the axes of a unit in PyTorch's layouts: all but the first, which has one index for each output."""
    return tuple(range(1 if len(shape) > 1 else 0, len(shape)))


def _excluded(named: Sequence[tuple[str, Tensor]], exclude: Names) -> set[int]:
    """Return the ids of the parameters whose names fit ``exclude``; raise if a name in it fits no parameter."""
    if not isinstance(exclude, Iterable):
        raise TypeError(f"exclude is {kind(exclude)}, expected names; leave it out to exclude nothing")
    found: set[int] = set()
    for pattern in [exclude] if isinstance(exclude, str) else exclude:
        if not isinstance(pattern, str):
            raise TypeError(f"exclude has {kind(pattern)} in it, expected names; pass names of parameters or modules")
        fit = {id(p) for name, p in named if _fits(name, pattern)}
        if not fit:
            some = "".join(f" {name}," for name, _ in named[:3])
            raise ValueError(
                f"exclude={pattern!r} fits none of the {len(named)} parameters{some and ':'}{some.rstrip(',')}"
                f"{', ...' * (len(named) > 3)}; expected the name of a parameter or of a module; pass the model or "
                "model.named_parameters(), so that they have names"
            )
        found |= fit
    return found


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _check(name: str, p: Tensor, g: Tensor) -> None:
    if is_distributed(p) or is_distributed(g):
        raise TypeError(
            f"{_CALLER}(): {name} is a DTensor, expected a plain tensor: the norm of a unit that lies on several ranks "
            "is not computed yet; exclude it"
        )
    if g.layout is not torch.strided:
        raise TypeError(
            f"{_CALLER}(): {name}.grad has layout {g.layout}, expected a dense gradient, whose units are those of its "
            "weights; exclude it, or make the layer without sparse=True"
        )
    if g.dim() > 1 and g.shape[0] > 1 and g.stride(0) == 0:
        raise ValueError(
            f"{_CALLER}(): {name}.grad is expanded, so that its units share elements, expected units in places of "
            "their own; pass a contiguous copy, or exclude it"
        )
