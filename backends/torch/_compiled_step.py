"""Under ``torch.compile``, the clipping of an optimizer's gradients is one custom operation of the graph."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradclip import _checks
from gradclip._decision import Rule
from gradclip._types import AnyScalar, Nonfinite
from gradclip.backends.torch._compiled import as_scalar, norm_like, traced_leaves
from gradclip.backends.torch._step import Scope, Told, clip_scopes_, together


def clip_groups_compiled_(
    groups: Sequence[dict[str, Any]],
    max_norm: AnyScalar | None,
    max_value: AnyScalar | None,
    eps: AnyScalar,
    ord: float,
    nonfinite: Nonfinite,
    per_group: bool,
) -> Told:
    """Clip the unscaled gradients of param groups as one operation of the graph that is being compiled."""
    kept = [[p.grad for p in group["params"] if p.grad is not None] for group in groups]
    sizes, grads = list(map(len, kept)), [g for group in kept for g in group]
    if not grads:
        norm = torch.zeros((len(sizes),) if per_group else ())
        return Told(norm, torch.ones_like(norm), torch.zeros_like(norm, dtype=torch.bool))
    limit, bound = (None if x is None else as_scalar(x) for x in (max_norm, max_value))
    norm, coefficient, clipped = torch.ops.gradclip.clip_step_(
        grads, sizes, limit, bound, as_scalar(eps), ord, nonfinite, per_group
    )
    return Told(norm, coefficient, clipped, math.inf if max_norm is None else max_norm)


@torch.library.custom_op("gradclip::clip_step_", mutates_args={"grads"})
def _clip_step_(
    grads: list[Tensor],
    sizes: list[int],
    max_norm: Tensor | None,
    max_value: Tensor | None,
    eps: Tensor,
    ord: float,
    nonfinite: str,
    per_group: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    rule, limit = Rule(None, ord, nonfinite, 1.0, eps), _checks.threshold(max_norm, "max_norm")
    rest = iter(grads)
    each = [traced_leaves([next(rest) for _ in range(n)]) for n in (sizes if per_group else [len(grads)])]
    scopes = [Scope(leaves, limit) for leaves in each]
    told, _ = clip_scopes_(scopes, rule, _checks.threshold(max_value, "max_value"), 1.0)
    done = together(told) if per_group else told[0]
    return done.norm, done.coefficient, done.clipped


@_clip_step_.register_fake
def _(
    grads: list[Tensor],
    sizes: list[int],
    max_norm: Tensor | None,  # noqa: ARG001  # shapes and dtypes depend on the gradients only
    max_value: Tensor | None,  # noqa: ARG001
    eps: Tensor,  # noqa: ARG001
    ord: float,  # noqa: ARG001
    nonfinite: str,  # noqa: ARG001
    per_group: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    norm = norm_like(grads)
    if per_group:
        norm = norm.new_empty(len(sizes))
    return norm, torch.empty_like(norm), torch.empty_like(norm, dtype=torch.bool)
