"""One clipping of an optimizer's gradients: all decisions are made before the first write."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradclip._by_value import clamp_leaves_
from gradclip._decision import Decision, Rule, decide_by_arrays, unscaled_norm
from gradclip._global import decide
from gradclip._nonfinite import refuse_nonfinite
from gradclip._partial import NormPartial
from gradclip._types import AnyScalar
from gradclip.backends.torch._leaves import TorchLeaves, ops_of


class Told(NamedTuple):
    """The results of one step's clipping. Tensors are 0-d, or of shape (number of groups,).

    Parameters
    ----------
    norm : Tensor
        The unscaled norm before clipping: float64 or float32.
    coefficient : Tensor
        What the gradients were multiplied by: 1 if they were not clipped, 0 if they were made zero.
    clipped : Tensor
        Whether they were clipped: boolean.
    """

    norm: Tensor
    coefficient: Tensor
    clipped: Tensor


def clip_scopes_(
    scopes: Sequence[TorchLeaves], rule: Rule, max_value: AnyScalar | None, loss_scale: AnyScalar
) -> list[Told]:
    """Clip the gradients of each scope by its own norm in place; all are checked before the first is written.

    Parameters
    ----------
    scopes : sequence of TorchLeaves
        The gradients, multiplied by ``loss_scale``. They are not divided by it.
    rule : Rule
        The rule, whose threshold is multiplied by ``loss_scale``, too.
    max_value : float, 0-d tensor or None
        The bound of each element, multiplied by ``loss_scale``, too.
    loss_scale : float or 0-d tensor
        The returned norms are divided by it.
    """
    whole = scopes[0] if len(scopes) == 1 else _joined(scopes)
    raw: list[Decision | None] = [None] * len(scopes)
    if max_value is not None:
        if rule.nonfinite != "propagate":  # clamping makes inf finite, so look for non-finite elements before
            raw = [decide(leaves, Rule(None, 2.0, rule.nonfinite)) for leaves in scopes]
        clamp_leaves_(whole, -max_value, max_value)
    decided = [_decide(leaves, rule, loss_scale, seen) for leaves, seen in zip(scopes, raw, strict=True)]
    each = [decision.coefficient for leaves, decision in zip(scopes, decided, strict=True) for _ in leaves.arrays]
    whole.scale_(each, "clip_by_global_norm")
    return list(map(_told, decided))


def together(told: Sequence[Told]) -> Told:
    """Return the results of several scopes as tensors of shape (len(told),) on the first scope's device."""
    norm, coefficient, clipped = zip(*told, strict=True)
    home = norm[0].device
    dtype = torch.float64 if any(x.dtype == torch.float64 for x in norm) else torch.float32
    norms, coefficients = (torch.stack([x.to(home, dtype) for x in numbers]) for numbers in (norm, coefficient))
    return Told(norms, coefficients, torch.stack([x.to(home) for x in clipped]))


def _joined(scopes: Sequence[TorchLeaves]) -> TorchLeaves:
    """Return the leaves of several scopes as one, to write them together."""
    arrays = [x for leaves in scopes for x in leaves.arrays]
    after = [action for leaves in scopes for action in leaves.after]

    def paths() -> list[str]:
        return [path for leaves in scopes for path in leaves.array_paths()]

    return TorchLeaves(arrays, ops_of(arrays), range(len(arrays)), list, paths, after)


def _decide(leaves: TorchLeaves, rule: Rule, loss_scale: AnyScalar, raw: Decision | None) -> Decision:
    """Return the decision for gradients. ``raw`` is that of before ``max_value`` was applied, or None."""
    unscaled = isinstance(loss_scale, float) and loss_scale == 1
    if raw is None and (unscaled or not leaves.arrays):
        return decide(leaves, rule)
    partial = leaves.partial(rule.ord)
    if raw is not None:
        seen = torch.as_tensor(raw.total, dtype=partial.total.dtype, device=partial.total.device)
        total = torch.where(torch.isfinite(seen), partial.total, seen)
        partial = NormPartial(partial.scale, total, partial.ord, partial.dtype)
    found = decide_by_arrays(partial, rule)
    if rule.nonfinite == "error":
        refuse_nonfinite(leaves, found.finite, rule.ord)
    return Decision(unscaled_norm(partial, loss_scale), found.coefficient, found.total)


def _told(decision: Decision) -> Told:
    norm, c = decision.norm, decision.coefficient
    number, changed = c.number, c.changed
    if isinstance(number, float):
        number = torch.scalar_tensor(number, dtype=torch.float64, device="cpu")
        changed = torch.scalar_tensor(changed, dtype=torch.bool, device="cpu")
    return Told(norm, number.to(norm), changed.to(norm.device))
