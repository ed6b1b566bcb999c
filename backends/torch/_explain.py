"""The norm of each parameter's gradient by its name, and a table of the largest norms."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradclip._norms import norms_of
from gradclip.backends.torch._arguments import norm_order
from gradclip.backends.torch._leaves import Parameters, leaves_found
from gradclip.backends.torch._sharing import Group, Replicated, sharing_of
from gradclip.backends.torch._walk import Found, walk
from gradclip.backends.torch.ops._rank_ops import RankOps


def grad_norms(
    parameters: Parameters, norm_type: float | str = 2.0, *, group: Group = None, replicated: Replicated = ()
) -> dict[str, Tensor]:
    """Return the norm of each parameter's gradient by the parameter's name.

    Nothing is written.

    Parameters
    ----------
    parameters : Tensor, Module, Optimizer, iterable or dict
        As for `clip_grad_norm_`. For a Module or named parameters, the keys of the result are the parameters' names.
    norm_type : float or "inf"
        The order of the norm, greater than 0.
    group, replicated
        As for `clip_grad_norm_`: all ranks get the norms of the parameters of all ranks. Parts of one parameter have
        the same name on all ranks, so pass a Module, an Optimizer with names, or named parameters.

    Returns
    -------
    dict of str to Tensor
        0-d norms in the parameters' order, each on its gradient's device; the host does not wait for them. float64 for
        float64 and complex128 gradients, else float32. Parameters without a gradient are left out. A repeated name, as
        in the named parameters of two models, gets a number: ``weight (2)``.

    Raises
    ------
    TypeError
        If ``parameters`` holds no parameters, as for `clip_grad_norm_`.
    ValueError
        If ``norm_type`` is not greater than 0.

    Examples
    --------
    >>> import torch
    >>> from gradclip.backends.torch import grad_norms
    >>> layer = torch.nn.Linear(2, 1)
    >>> layer(torch.tensor([[3.0, 4.0]])).sum().backward()
    >>> grad_norms(layer)
    {'weight': tensor(5.), 'bias': tensor(1.)}
    """
    return _named_norms(parameters, norm_order(norm_type), "grad_norms", group, replicated)[0]


def explain(
    parameters: Parameters, top: int = 10, *, group: Group = None, replicated: Replicated = ()
) -> "Explanation":
    """Return the norms of the parameters' gradients and their shares of the global norm, the largest first.

    Nothing is written. The host waits for the device and reads every norm.

    Parameters
    ----------
    parameters
        As for `grad_norms`.
    top : int
        The number of rows of the printed table.
    group, replicated
        As for `grad_norms`.

    Returns
    -------
    Explanation
        A mapping of names to Euclidean norms as floats, the largest first. ``str()`` of it is a table.

    Raises
    ------
    TypeError
        If ``parameters`` holds no parameters, as for `clip_grad_norm_`.

    Examples
    --------
    >>> import torch
    >>> from gradclip.backends.torch import explain
    >>> layer = torch.nn.Linear(2, 1)
    >>> layer(torch.tensor([[3.0, 4.0]])).sum().backward()
    >>> print(explain(layer))
    parameter  norm  share of norm²
    weight        5           96.2%
    bias          1            3.8%
    2 of 2 parameters; norm 5.099
    """
    norms, tied = _named_norms(parameters, 2.0, "explain", group, replicated)
    found = {name: float(norm) for name, norm in norms.items() if name not in tied}
    whole = math.hypot(*found.values())
    return Explanation(dict(sorted(found.items(), key=_by_size)), whole, top)


@dataclass(frozen=True)
class Explanation(Mapping[str, float]):
    """What `explain` returns: norms by name, NaN first, then the largest.

    Parameters
    ----------
    norms : dict of str to float
        The norm of each parameter's gradient.
    norm : float
        The norm of all gradients laid end to end.
    top : int
        The number of rows of the table.
    """

    norms: dict[str, float]
    norm: float
    top: int = 10

    def __getitem__(self, name: str) -> float:
        return self.norms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.norms)

    def __len__(self) -> int:
        return len(self.norms)

    def share(self, name: str) -> float:
        """Return a parameter's share of the squared norm, 0 to 1. Norms that are inf or NaN share 1 equally."""
        part = self.norms[name]
        if math.isfinite(self.norm):
            return (part / self.norm) ** 2 if self.norm else 0.0
        guilty = sum(not math.isfinite(other) for other in self.norms.values())
        return 0.0 if math.isfinite(part) else 1.0 / guilty

    def __str__(self) -> str:
        """Return the table of the ``top`` largest norms."""
        shown = [
            (name, f"{norm:.4g}", f"{self.share(name):.1%}") for name, norm in list(self.norms.items())[: self.top]
        ]
        rows = [("parameter", "norm", "share of norm²"), *shown]
        wide = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{a:<{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}" for a, b, c in rows]
        noun = "parameter" if len(self) == 1 else "parameters"
        return "\n".join([*lines, f"{len(shown)} of {len(self)} {noun}; norm {self.norm:.4g}"])


def _named_norms(
    parameters: Parameters, order: float, caller: str, group: Group, replicated: Replicated
) -> tuple[dict[str, Tensor], set[str]]:
    """Return the norm of each gradient by its parameter's name, and the second names of tied gradients."""
    parameters = list(parameters) if isinstance(parameters, Iterator) else parameters
    with torch.no_grad(), sharing_of(parameters, group, replicated) as sharing:
        found = walk(parameters, "parameters", caller)
        leaves, names = leaves_found(found, sharing), names_of(found)
        first = dict(zip(map(id, reversed(found.grads)), reversed(names), strict=True))
        tied = {name for g, name in zip(found.grads, names, strict=True) if first[id(g)] != name}
        if not isinstance(leaves.ops, RankOps):
            norms = norms_of(leaves, order) if found.grads else []
            return dict(zip(names, norms, strict=True)), tied
        whole = leaves.ops.named_partials(leaves.arrays, list(dict.fromkeys(first[id(g)] for g in found.grads)), order)
        here = {name: first[id(g)] for g, name in zip(found.grads, names, strict=True)}
        at = {name: g.device for g, name in zip(found.grads, names, strict=True)}
        every = {**here, **{name: name for name in whole if name not in here}}
        return {name: whole[of].norm().to(at.get(name, "cpu")) for name, of in every.items()}, tied


def names_of(found: Found) -> list[str]:
    """Return the name of each gradient's parameter. Names are distinct: a repeated name gets a number."""
    names, seen = [], Counter[str]()
    for path in found.paths:
        name = path.removesuffix(".grad")
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def _by_size(pair: tuple[str, float]) -> float:
    return -math.inf if math.isnan(pair[1]) else -pair[1]
