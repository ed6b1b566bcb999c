"""One clipping of an optimizer's gradients: every decision first, then every write."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gradclip._by_value import clamp_leaves_
from gradclip._coefficient import Coefficient
from gradclip._finished import FinishingRule
from gradclip._global import refuse_nonfinite
from gradclip._norms import partial_of, reported
from gradclip._partial import NormPartial, space
from gradclip._types import Scalar
from gradclip.backends.torch._leaves import TorchLeaves, as_tensor, ops_of
from gradclip.backends.torch._ops import as_tensors
from gradclip.backends.torch._ordinary import grads_of, multiply_plain_, norm_of


class Told(NamedTuple):
    """What was done to the gradients of a step.

    Parameters
    ----------
    norm : Tensor
        The unscaled norm before clipping.
    coefficient : Tensor
        What the gradients were multiplied by: 1 if they were not clipped, 0 if they were made zero.
    clipped : Tensor
        Whether they were clipped: boolean.
    """

    norm: Tensor
    coefficient: Tensor
    clipped: Tensor


def clip_plain_(params: Sequence[Tensor], limit: float) -> Told | None:
    """Clip plain gradients by a number in few calls; or return None and leave them, if anything is unusual."""
    grads = grads_of(params)
    if not grads or not grads[0].is_cpu:
        return None
    found = norm_of(grads)
    if found is None:
        return None
    norm, table = found
    clipped = norm > limit
    factor = limit / norm if clipped else 1.0
    if clipped and not multiply_plain_(grads, table, factor):
        return None
    dtype = torch.float32 if table.code else torch.float64
    told, used = (torch.scalar_tensor(x, dtype=dtype, device="cpu") for x in (norm, factor))
    return Told(told, used, torch.scalar_tensor(clipped, dtype=torch.bool, device="cpu"))


def clip_scopes_(
    scopes: Sequence[TorchLeaves], rule: FinishingRule, max_value: Scalar | None, loss_scale: Scalar
) -> list[Told]:
    """Clip the gradients of each scope by its own norm in place; all are checked before the first is written.

    Parameters
    ----------
    scopes : sequence of TorchLeaves
        The gradients, ``loss_scale`` times too large. They stay so.
    rule : FinishingRule
        For gradients of this scale.
    max_value : float, 0-d tensor or None
        The bound of each element, for gradients of this scale.
    loss_scale : float or 0-d tensor
        What the norms that are told are divided by.
    """
    whole = scopes[0] if len(scopes) == 1 else _joined(scopes)
    raw: list[NormPartial | None] = [None] * len(scopes)
    if max_value is not None:
        if rule.nonfinite != "propagate":  # bounds turn inf into numbers: what acts on inf must look before
            raw = [_checked(leaves, rule) for leaves in scopes]
        clamp_leaves_(whole, -max_value, max_value)
    with np.errstate(all="ignore"):
        decided = [_decide(leaves, rule, loss_scale, part) for leaves, part in zip(scopes, raw, strict=True)]
        each = [c for leaves, (_, c) in zip(scopes, decided, strict=True) for _ in leaves.arrays if c is not None]
        whole.scale_(each, "clip_by_global_norm")
        return [_told(norm, c) for norm, c in decided]


def together(told: Sequence[Told]) -> Told:
    """Return what was done to several scopes, in tensors of shape (len(told),) on the first scope's device."""
    norm, coefficient, clipped = zip(*told, strict=True)
    home = norm[0].device
    dtype = torch.float64 if any(x.dtype == torch.float64 for x in norm) else torch.float32
    norms, coefficients = (torch.stack([x.to(home, dtype) for x in numbers]) for numbers in (norm, coefficient))
    return Told(norms, coefficients, torch.stack([x.to(home) for x in clipped]))


def _joined(scopes: Sequence[TorchLeaves]) -> TorchLeaves:
    """Return the leaves of several scopes in one, to be written together."""
    arrays = [x for leaves in scopes for x in leaves.arrays]
    after = [action for leaves in scopes for action in leaves.after]

    def paths() -> list[str]:
        return [path for leaves in scopes for path in leaves.array_paths()]

    return TorchLeaves(arrays, ops_of(arrays), range(len(arrays)), list, paths, after)


def _checked(leaves: TorchLeaves, rule: FinishingRule) -> NormPartial:
    """Return the partial of gradients as they came, whose total tells whether all are finite; or refuse them."""
    partial = partial_of(leaves, 2.0)
    if rule.nonfinite == "error" and leaves.arrays:
        refuse_nonfinite(leaves, partial)
    return partial


def _decide(
    leaves: TorchLeaves, rule: FinishingRule, loss_scale: Scalar, raw: NormPartial | None
) -> tuple[Tensor, Coefficient | None]:
    """Return the norm to tell, and the coefficient; None if there are no gradients."""
    if not leaves.arrays:
        return as_tensor(partial_of(leaves, rule.ord).norm()), None
    partial = partial_of(leaves.finishing(rule), rule.ord)
    if raw is not None:
        xp = space(partial.total)
        total = xp.where(xp.isfinite(raw.total), partial.total, raw.total)
        partial = NormPartial(partial.scale, total, partial.ord, partial.dtype)
    return as_tensor(reported(partial, loss_scale)), rule.coefficient(leaves, partial)


def _told(norm: Tensor, c: Coefficient | None) -> Told:
    if c is None:
        return Told(norm, torch.ones_like(norm), torch.zeros_like(norm, dtype=torch.bool))
    applied = as_tensors(c)
    return Told(norm, applied.number.to(norm), applied.changed.to(norm.device))
